package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"walhook/doctor"
	"walhook/internal/carrier"
	"walhook/sender"
	"walhook/sender/deliver"
)

// demoView shows a person what the demo does: on a terminal a screen (demo_screen.go),
// elsewhere lines. It counts every attempt, and shows only the latest of them, so nobody
// waits for it. It is safe for concurrent use.
type demoView struct {
	options demoOptions
	out     io.Writer
	now     func() time.Time

	mu        sync.Mutex // guards what follows
	screen    *screen    // nil for lines
	frame     demoFrame
	receivers map[int64]*demoReceiver // by endpoint
	highest   int                     // index of the newest account that is known
	counted   int                     // accounts that the kinds have counted
	log       []string                // lines of walhook's log that wait for the end of the screen
	logMore   int                     // lines that log has no room for
	printed   string                  // the latest line, without a screen
	printedAt time.Time
}

// demoReceiver is one endpoint's part of the demo.
type demoReceiver struct {
	account  string
	kind     string
	appended int // events
	finished int // of these: delivered or dead
	ended    bool
	open     bool
	last     string // reason of the latest attempt, or its status
}

func (r *demoReceiver) waiting() int {
	if r.ended {
		return 0
	}
	return max(r.appended-r.finished, 0)
}

// The bounds of what the view keeps.
const (
	keptAttempts  = 100
	keptLatencies = 500 // for each kind of receiver
	keptLog       = 50
)

// newDemoView returns a view on out. It is a screen if out is a terminal that can show
// one.
func newDemoView(o demoOptions, out io.Writer) *demoView {
	v := &demoView{options: o, out: out, now: time.Now, receivers: map[int64]*demoReceiver{}, highest: o.accounts - 1}
	v.frame = demoFrame{options: o, kinds: map[string]*demoKind{}}
	for _, kind := range demoKinds {
		v.frame.kinds[kind] = &demoKind{}
	}
	if o.portal { // a link on a screen would be cut, and could not be selected
		return v
	}
	v.open(true, (*demoFrame).draw)
	return v
}

// open begins to draw, if out is a terminal that can show it.
func (v *demoView) open(whole bool, draw func(f *demoFrame, width, height int) string) {
	screen := openScreen(v.out, whole, func(width, height int) string {
		f := v.snapshot()
		return draw(&f, width, height)
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	v.screen = screen
}

// invite prints the link to the portal. It stays there: what follows is a line below it.
func (v *demoView) invite(text string) {
	fmt.Fprint(v.out, text)
	v.open(false, func(f *demoFrame, width, height int) string { return fit([]string{f.line(f.now)}, width, height) })
}

// close ends the screen, if there is one. Then it prints the log lines that it held back.
func (v *demoView) close(errOut io.Writer) error {
	v.mu.Lock()
	screen := v.screen
	v.screen = nil
	v.mu.Unlock()
	err := screen.close() // it may draw once more
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, line := range v.log {
		fmt.Fprint(errOut, line)
	}
	if v.logMore > 0 {
		fmt.Fprintf(errOut, "and %s of the log\n", doctor.Count(v.logMore, "more line"))
	}
	return err
}

// Write takes lines of walhook's log: beside a screen they would break it.
func (v *demoView) Write(line []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.frame.fault = strings.TrimSpace(string(line))
	if len(v.log) < keptLog {
		v.log = append(v.log, string(line))
	} else {
		v.logMore++
	}
	return len(line), nil
}

// Sync is for the logger; it does nothing.
func (v *demoView) Sync() error { return nil }

// step says what the demo does next.
func (v *demoView) step(what string) {
	v.mu.Lock()
	v.frame.steps = append(v.frame.steps, what)
	v.frame.stepBegan = v.now()
	lines := v.screen == nil
	v.mu.Unlock()
	if lines {
		fmt.Fprintf(v.out, "· %s\n", what)
	}
}

// doing returns the latest step.
func (v *demoView) doing() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.frame.steps) == 0 {
		return "starting"
	}
	return v.frame.steps[len(v.frame.steps)-1]
}

// begin says that the carrier's activity begins.
func (v *demoView) begin() {
	v.mu.Lock()
	v.frame.began = v.now()
	lines := v.screen == nil
	v.mu.Unlock()
	if lines && !v.options.portal {
		fmt.Fprintf(v.out, "\nFor %s, changes become POSTs to %d accounts' receivers. 1 in 10 of them is dead, 1 in 10 slow, 2 in 10 flaky.\n\n",
			v.options.duration, v.options.accounts)
	}
}

// idle says that the activity has ended.
func (v *demoView) idle() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.frame.ended = v.now()
}

// attempt is called by the sender.
func (v *demoView) attempt(r sender.AttemptReport) {
	latency := max(r.At.Add(r.Duration).Sub(r.CommittedAt), 0)
	v.mu.Lock()
	defer v.mu.Unlock()
	receiver := v.receiver(r.Endpoint, r.Account)
	kind := v.frame.kinds[receiver.kind]
	receiver.last, kind.last = r.Reason, r.Reason
	switch deliver.Outcome(r.Outcome) {
	case deliver.Delivered:
		kind.delivered++
		receiver.finished++
		kind.latencies = keep(kind.latencies, latency, keptLatencies)
	case deliver.Dead:
		kind.failed++
		receiver.finished++
	default:
		kind.failed++
	}
	v.frame.latest = keep(v.frame.latest, demoAttempt{AttemptReport: r, kind: receiver.kind, latency: latency}, keptAttempts)
}

// keep appends to a list and drops the oldest ones above most.
func keep[T any](list []T, one T, most int) []T {
	if list = append(list, one); len(list) >= 2*most {
		list = append(list[:0], list[len(list)-most:]...)
	}
	return list
}

func (v *demoView) receiver(endpoint int64, account string) *demoReceiver {
	r := v.receivers[endpoint]
	if r == nil {
		r = &demoReceiver{account: account, kind: accountClass(account)}
		v.receivers[endpoint] = r
		v.highest = max(v.highest, accountNumber(account))
	}
	return r
}

// demoReading is what the demo reads from the databases each second, beside the attempts.
type demoReading struct {
	committed int                   // transactions of the carrier
	appended  map[int64]demoBacklog // since the last reading, by endpoint
	open      map[int64]bool        // endpoints whose breaker is open, as the sender stored it
	ended     []int64               // endpoints of closed accounts that get nothing more
}

type demoBacklog struct {
	account string
	events  int
}

// furthestBehind is how many receivers the screen names, where it has room.
const furthestBehind = 10

// sameLineEvery is how often the same line is printed, while a carrier is idle and retries
// are far away.
const sameLineEvery = 10 * time.Second

// read takes a reading, and prints a line if there is no screen and something changed. Nobody waits for who
// reads that line.
func (v *demoView) read(reading demoReading) {
	if line := v.take(reading); line != "" {
		fmt.Fprintln(v.out, line)
	}
}

func (v *demoView) take(reading demoReading) (line string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f, now := &v.frame, v.now()
	f.committed = reading.committed
	for endpoint, events := range reading.appended {
		v.receiver(endpoint, events.account).appended += events.events
	}
	for _, endpoint := range reading.ended {
		if r := v.receivers[endpoint]; r != nil {
			r.ended = true
		}
	}
	for ; v.counted <= v.highest; v.counted++ {
		f.kinds[demoClass(v.counted)].receivers++
	}
	for _, kind := range f.kinds {
		kind.waiting, kind.open = 0, 0
	}
	f.behind = f.behind[:0]
	for endpoint, r := range v.receivers {
		r.open = reading.open[endpoint]
		kind := f.kinds[r.kind]
		kind.waiting += r.waiting()
		if r.open {
			kind.open++
		}
		if r.open || r.waiting() > 0 {
			f.behind = append(f.behind, *r)
		}
	}
	slices.SortFunc(f.behind, func(a, b demoReceiver) int {
		return cmp.Or(cmp.Compare(b.waiting(), a.waiting()), strings.Compare(a.account, b.account))
	})
	f.behind = slices.Clone(f.behind[:min(len(f.behind), furthestBehind)])
	delivered := f.total().delivered
	if !f.readAt.IsZero() && now.After(f.readAt) {
		f.perSecond = float64(delivered-f.deliveredThen) / now.Sub(f.readAt).Seconds()
	}
	f.readAt, f.deliveredThen = now, delivered
	if v.screen == nil {
		line = f.line(now)
		if line == v.printed && now.Sub(v.printedAt) < sameLineEvery {
			return ""
		}
		v.printed, v.printedAt = line, now
	}
	return line
}

// accountNumber returns the index of an account.
func accountNumber(account string) int {
	var id int64
	if _, err := fmt.Sscan(account, &id); err != nil {
		return 0
	}
	return int(id - carrier.AccountID(0))
}

// snapshot copies what the screen shows.
func (v *demoView) snapshot() demoFrame {
	v.mu.Lock()
	defer v.mu.Unlock()
	f := v.frame
	f.now = v.now()
	f.steps, f.latest, f.behind = slices.Clone(f.steps), slices.Clone(f.latest), slices.Clone(f.behind)
	f.kinds = make(map[string]*demoKind, len(v.frame.kinds))
	for name, kind := range v.frame.kinds {
		kind := *kind
		kind.latencies = slices.Clone(kind.latencies)
		f.kinds[name] = &kind
	}
	return f
}

// follow reads each second until ctx ends. Figures that cannot be read stay as they are.
func (v *demoView) follow(ctx context.Context, log *zap.Logger, read func(context.Context) (demoReading, error)) error {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-second.C:
			reading, err := read(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				log.Warn("the demo's figures are not read", zap.Error(err))
				continue
			}
			v.read(reading)
		}
	}
}

// logTo returns where walhook's log goes: standard error, except where that would break
// the screen.
func (v *demoView) logTo(errOut io.Writer) io.Writer {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.screen == nil || screenTerminal(errOut) == nil {
		return errOut
	}
	return v
}
