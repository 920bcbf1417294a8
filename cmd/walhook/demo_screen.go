package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"walhook/doctor"
	"walhook/sender"
	"walhook/sender/deliver"
)

// demoFrame is what the demo's view shows at one moment. Drawing it is pure.
type demoFrame struct {
	options   demoOptions
	now       time.Time
	steps     []string // what the demo did, and does now
	stepBegan time.Time
	began     time.Time // of the carrier's activity; zero before
	ended     time.Time // zero while it runs
	fault     string    // the latest line of walhook's log

	committed     int // transactions
	perSecond     float64
	readAt        time.Time
	deliveredThen int // at readAt

	kinds  map[string]*demoKind
	behind []demoReceiver // those that wait for most events, and those with an open breaker
	latest []demoAttempt  // the newest last
}

// demoKind are the totals of one kind of receiver.
type demoKind struct {
	receivers, delivered, failed, waiting, open int
	latencies                                   []time.Duration // from commit to 2xx, the latest
	last                                        string          // reason of the latest attempt
}

// demoAttempt is an attempt as the screen shows it.
type demoAttempt struct {
	sender.AttemptReport
	kind    string
	latency time.Duration
}

func (f *demoFrame) total() (sum demoKind) {
	for _, kind := range f.kinds {
		sum.receivers += kind.receivers
		sum.delivered += kind.delivered
		sum.failed += kind.failed
		sum.waiting += kind.waiting
		sum.open += kind.open
	}
	return sum
}

// progress says how far the demo is.
func (f *demoFrame) progress(now time.Time) string {
	switch {
	case f.began.IsZero():
		return "starting"
	case f.ended.IsZero() && f.options.portal:
		return now.Sub(f.began).Truncate(time.Second).String()
	case f.ended.IsZero():
		return fmt.Sprintf("%d s of %s", int(min(now.Sub(f.began), f.options.duration).Seconds()), f.options.duration)
	}
	return "the carrier is idle"
}

// line is the state as one line of text.
func (f *demoFrame) line(now time.Time) string {
	t := f.total()
	return fmt.Sprintf("%s: %s committed, %s delivered (%.0f/s), %s waiting, %s failed, %s open",
		f.progress(now), doctor.Count(f.committed, "transaction"), doctor.Count(t.delivered, "event"), f.perSecond,
		doctor.Count(t.waiting, "event"), doctor.Count(t.failed, "attempt"), doctor.Count(t.open, "breaker"))
}

// The rows of a screen beside its lists.
const (
	leastDeliveries = 4 // before the list of receivers gets room
	demoFooter      = "Ctrl-C ends it with the summary; again, at once"
	demoFooterShort = "Ctrl-C ends it with the summary"
)

// draw fills a window. What has no room is left out, the least important first.
func (f *demoFrame) draw(width, height int) string {
	head := f.head(width)
	footer := styleFaint.Styled(demoFooter)
	if width < len(demoFooter) {
		footer = styleFaint.Styled(demoFooterShort)
	}
	if f.began.IsZero() {
		room := max(height-len(head)-2, 1)
		return fit(slices.Concat(head, []string{""}, f.stepLines(room), []string{footer}), width, height)
	}
	lines := slices.Concat(head, []string{""}, table(demoKindColumns, demoKinds, width, func(name string) demoKindRow { return demoKindRow{name, f.kinds[name]} }))
	room := height - len(lines) - 1
	if room >= leastDeliveries+2+2+1 && len(f.behind) > 0 {
		most := min(len(f.behind), max(1, (room-leastDeliveries-2-2)*2/3))
		lines = append(lines, "")
		lines = append(lines, table(demoBehindColumns, f.behind[:most], width, func(r demoReceiver) demoReceiver { return r })...)
		room = height - len(lines) - 1
	}
	if room >= 3 {
		lines = append(lines, "", styleTitle.Styled("LATEST ATTEMPTS"))
		room -= 2
	}
	latest := f.latest[max(0, len(f.latest)-max(room, 0)):]
	for _, a := range slices.Backward(latest) {
		lines = append(lines, a.line(width))
	}
	for range room - len(latest) {
		lines = append(lines, "")
	}
	return fit(append(lines[:min(len(lines), max(height-1, 0))], footer), width, height)
}

func (f *demoFrame) head(width int) []string {
	t := f.total()
	title := styleTitle.Styled("walhook demo") + "  " + f.progress(f.now)
	if width >= 60 {
		rate := "as fast as possible"
		if f.options.rate > 0 {
			rate = fmt.Sprintf("%g transactions/s", f.options.rate)
		}
		title += styleFaint.Styled(fmt.Sprintf("  %s  %s  seed %d", rate, doctor.Count(f.options.accounts, "account"), f.options.seed))
	}
	totals := fmt.Sprintf("%d delivered  %d waiting  %d failed", t.delivered, t.waiting, t.failed)
	if width >= 60 {
		totals = fmt.Sprintf("%s  %d delivered  %.0f/s  %d waiting  %d failed", doctor.Count(f.committed, "transaction"), t.delivered, f.perSecond, t.waiting, t.failed)
	}
	if width >= 100 {
		totals += "  " + doctor.Count(t.open, "breaker") + " open"
	}
	lines := []string{title, totals}
	switch {
	case f.fault != "":
		lines = append(lines, styleBad.Styled(printable(f.fault)))
	case !f.ended.IsZero() && len(f.steps) > 0:
		lines = append(lines, f.stepLine(len(f.steps)-1))
	}
	return lines
}

// stepLines are the latest steps, and below them empty lines up to n.
func (f *demoFrame) stepLines(n int) []string {
	var lines []string
	for i := max(0, len(f.steps)-n); i < len(f.steps); i++ {
		lines = append(lines, f.stepLine(i))
	}
	for len(lines) < n {
		lines = append(lines, "")
	}
	return lines
}

// stepLine marks the steps that are done, and says how long the present one has taken.
func (f *demoFrame) stepLine(i int) string {
	if i < len(f.steps)-1 {
		return styleGood.Styled("✓") + " " + printable(f.steps[i])
	}
	line := "· " + printable(f.steps[i])
	if took := f.now.Sub(f.stepBegan); took >= time.Second {
		line += styleFaint.Styled(fmt.Sprintf("  %d s", int(took.Seconds())))
	}
	return line
}

// column is a column of a table on a screen. Windows narrower than from do without it.
type column[T any] struct {
	title string
	width int // without the two spaces before the next one
	from  int
	left  bool
	text  func(T) string
}

// table lays out rows under their titles, in columns of fixed width: nothing moves when
// a figure changes.
func table[Item, Row any](columns []column[Row], items []Item, width int, row func(Item) Row) []string {
	lines := make([]string, len(items)+1)
	for _, c := range columns {
		if width < c.from {
			continue
		}
		add := func(i int, text string) {
			if i == 0 {
				text = styleTitle.Styled(text)
			}
			text = ansi.Truncate(text, c.width, "…")
			space := strings.Repeat(" ", c.width-ansi.StringWidth(text))
			if lines[i] != "" {
				lines[i] += "  "
			}
			if c.left {
				lines[i] += text + space
			} else {
				lines[i] += space + text
			}
		}
		add(0, c.title)
		for i, item := range items {
			add(i+1, c.text(row(item)))
		}
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}

type demoKindRow struct {
	name string
	*demoKind
}

var demoKindColumns = []column[demoKindRow]{
	{"RECEIVERS", 9, 0, true, func(r demoKindRow) string { return r.name }},
	{"COUNT", 6, 78, false, func(r demoKindRow) string { return fmt.Sprint(r.receivers) }},
	{"DELIVERED", 9, 0, false, func(r demoKindRow) string { return fmt.Sprint(r.delivered) }},
	{"FAILED", 7, 60, false, func(r demoKindRow) string { return fmt.Sprint(r.failed) }},
	{"WAITING", 7, 0, false, func(r demoKindRow) string { return fmt.Sprint(r.waiting) }},
	{"BREAKER", 8, 0, true, func(r demoKindRow) string { return breakerText(r.open) }},
	{"P50", 8, 60, false, func(r demoKindRow) string { return quantileText(r.latencies, 50) }},
	{"P99", 8, 70, false, func(r demoKindRow) string { return quantileText(r.latencies, 99) }},
	{"MAX", 8, 110, false, func(r demoKindRow) string { return quantileText(r.latencies, 100) }},
	{"LATEST ANSWER", 20, 110, true, func(r demoKindRow) string { return printable(r.last) }},
}

var demoBehindColumns = []column[demoReceiver]{
	{"ACCOUNT", 9, 0, true, func(r demoReceiver) string { return printable(r.account) }},
	{"KIND", 7, 0, true, func(r demoReceiver) string { return r.kind }},
	{"WAITING", 7, 0, false, func(r demoReceiver) string { return fmt.Sprint(r.waiting()) }},
	{"BREAKER", 7, 0, true, func(r demoReceiver) string {
		if r.open {
			return "open"
		}
		return "closed"
	}},
	{"LATEST ANSWER", 20, 75, true, func(r demoReceiver) string { return printable(r.last) }},
}

func breakerText(open int) string {
	if open == 0 {
		return "closed"
	}
	return fmt.Sprintf("%d open", open)
}

// quantileText is a latency below which so many percent are.
func quantileText(latencies []time.Duration, percent int) string {
	if len(latencies) == 0 {
		return "-"
	}
	sorted := slices.Sorted(slices.Values(latencies))
	return latencyText(sorted[(len(sorted)-1)*percent/100])
}

func latencyText(d time.Duration) string {
	switch {
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", milliseconds(d))
	case d < 10*time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// line is an attempt in a list: time, answer, receiver, event and latency.
func (a demoAttempt) line(width int) string {
	mark, answer, age := styleGood.Styled("✓"), fmt.Sprint(a.Status), latencyText(a.latency)
	if a.Outcome != string(deliver.Delivered) {
		mark, answer, age = styleBad.Styled("✗"), a.Reason, "attempt "+fmt.Sprint(a.Attempt)
	}
	clock := ""
	if width >= 60 {
		clock = a.At.Format("15:04:05.000") + " "
	}
	if width >= 110 {
		age = fmt.Sprintf("%-9s  %s", age, printable(a.WebhookID))
	}
	return fmt.Sprintf("%s%s %-12s %-5s %-7s  %-6s %-17s %s", clock, mark, printable(answer), printable(a.Account), a.kind,
		printable(a.Type), printable(a.Schema), styleFaint.Styled(age))
}
