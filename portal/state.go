package portal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"walhook/outbox"
)

// webhook is a webhook as the API shows it.
type webhook struct {
	ID                  string          `json:"id"`
	Name                string          `json:"name"`
	URI                 string          `json:"uri"`
	HTTPVerb            string          `json:"http_verb"`
	Hook                string          `json:"hook"`
	Type                string          `json:"type"`
	Action              string          `json:"action"`
	Schemas             []string        `json:"schemas"`
	Types               []string        `json:"types"`
	Format              string          `json:"format"`
	Retries             *int            `json:"retries"`
	RateLimit           float64         `json:"rate_limit"`
	Batch               int             `json:"batch"`
	CustomData          json.RawMessage `json:"custom_data"`
	Headers             shownHeaders    `json:"headers"`
	Enabled             bool            `json:"enabled"`
	State               string          `json:"state"`
	DisableReason       string          `json:"disable_reason"`
	DisabledBy          string          `json:"disabled_by"`
	AlsoDisabledBy      string          `json:"also_disabled_by"`
	AlsoDisableReason   string          `json:"also_disable_reason"`
	HeldSince           *time.Time      `json:"held_since"`
	HeldReason          string          `json:"held_reason"`
	IncludeSubaccounts  bool            `json:"include_subaccounts"`
	IncludeInternalLegs bool            `json:"include_internal_legs"`
	InitialState        bool            `json:"initial_state"`
	Delivery            string          `json:"delivery"`
	DailyAt             string          `json:"daily_at"`
	DailyZone           string          `json:"daily_zone"`
	Endpoint            int64           `json:"endpoint"`
	CreatedAt           time.Time       `json:"created_at"`
	ChangedAt           time.Time       `json:"changed_at"`
	Health              *health         `json:"health"`
}

// shownHeaders are masked values by name.
type shownHeaders map[string]string

// Own reports whether it is the account's own webhook URL.
func (w webhook) Own() bool { return w.ID == "account" }

// OfOperators reports whether an operator disabled it: nothing is sent to it, tests
// included, and only an operator enables it.
func (w webhook) OfOperators() bool { return w.DisabledBy == outbox.ByOperator }

// Testable reports whether a test can be sent to it.
func (w webhook) Testable() bool {
	return w.Delivery != "pull" && w.State != string(outbox.EndpointCleared) && !w.OfOperators()
}

// The API counts no more events that wait for their first attempt.
const (
	mostWaiting        = 1000
	mostWaitingInLists = 50
)

// health is how deliveries to a webhook fare.
type health struct {
	Breaker       string     `json:"breaker"`
	OpenUntil     *time.Time `json:"open_until"`
	PausedUntil   *time.Time `json:"paused_until"`
	FailingSince  *time.Time `json:"failing_since"`
	LastReason    string     `json:"last_reason"`
	LastSuccessAt *time.Time `json:"last_success_at"`
	Waiting       int64      `json:"waiting"`
	Retrying      int64      `json:"retrying"`
	Dead          int64      `json:"dead"`
}

// mark is a state in words, with a colour and a sign that stands beside the colour.
type mark struct {
	Kind string // good, warn, bad, idle: the colour
	Sign string
	Text string
	More string // what it means, or what to do
}

var signs = map[string]string{"good": "✓", "warn": "!", "bad": "✕", "idle": "‖"}

func (p *pages) mark(kind, key string, args ...any) mark {
	m := mark{Kind: kind, Sign: signs[kind], Text: p.text(key, args...)}
	if _, there := p.texts[key+".more"]; there {
		m.More = p.text(key + ".more")
	}
	return m
}

// state says how a webhook fares.
func (p *pages) state(w webhook) (m mark) {
	switch {
	case w.State == "disabled":
		m = p.mark("bad", "state.disabled")
		if w.DisabledBy == outbox.ByAccount { // on purpose
			m = p.mark("idle", "state.disabled")
		}
		m.More = sentence(w.DisableReason)
	case w.State == "cleared":
		return p.mark("idle", "state.cleared")
	case w.State == "unusable":
		m = p.mark("bad", "state.unusable")
		m.More = sentence(w.DisableReason)
	case w.Delivery == "pull":
		return p.mark("good", "state.pull")
	case w.HeldSince != nil:
		m = p.mark("warn", "state.held", clock(*w.HeldSince))
		m.More = sentence(w.HeldReason)
	case w.Health == nil:
		return p.mark("good", "state.active")
	case w.Health.Breaker == "open" && w.Health.OpenUntil != nil:
		m = p.mark("bad", "state.open_until", clock(*w.Health.OpenUntil))
		m.More = p.reason(w.Health.LastReason)
	case w.Health.Breaker == "open":
		m = p.mark("bad", "state.open")
		m.More = p.reason(w.Health.LastReason)
	case w.Health.Breaker == "half_open":
		m = p.mark("warn", "state.half_open")
		m.More = p.reason(w.Health.LastReason)
	case w.Health.PausedUntil != nil:
		m = p.mark("warn", "state.paused", clock(*w.Health.PausedUntil))
		m.More = p.reason(w.Health.LastReason)
	case w.Health.FailingSince != nil:
		m = p.mark("warn", "state.failing", clock(*w.Health.FailingSince))
		m.More = p.reason(w.Health.LastReason)
	case w.Health.Retrying > 0 || w.Health.LastReason != "":
		m = p.mark("warn", "state.retrying")
		m.More = p.reason(w.Health.LastReason)
	case w.Health.LastSuccessAt == nil:
		return p.mark("good", "state.ready")
	default:
		return p.mark("good", "state.active")
	}
	return m
}

// eventState says what became of an event.
func (p *pages) eventState(state string) mark {
	kind := map[string]string{"delivered": "good", "waiting": "idle", "retry": "warn", "dead": "bad", "held": "idle", "pull": "good", "replayed": "idle"}[state]
	if kind == "" {
		return mark{Kind: "idle", Sign: "?", Text: state}
	}
	return p.mark(kind, "event."+state)
}

// outcome says what an attempt came to.
func (p *pages) outcome(outcome string) mark {
	kind := map[string]string{"delivered": "good", "retry": "warn", "pause": "warn", "disable": "bad", "dead": "bad", "held": "idle"}[outcome]
	if kind == "" {
		return mark{Kind: "idle", Sign: "?", Text: outcome}
	}
	return p.mark(kind, "outcome."+outcome)
}

// tried says what a test came to, which is never tried again.
func (p *pages) tried(outcome string) mark {
	if outcome == "delivered" {
		return p.outcome(outcome)
	}
	return p.mark("bad", "test.failed")
}

// lane says how a lane stands, for operators.
func (p *pages) lane(status string) mark {
	kind := map[outbox.LaneStatus]string{outbox.LaneLive: "good", outbox.LaneBehind: "warn", outbox.LanePaused: "warn", outbox.LaneOpen: "bad", outbox.LaneHalfOpen: "warn", outbox.LaneHeld: "idle"}[outbox.LaneStatus(status)]
	if kind == "" {
		return mark{Kind: "idle", Sign: "?", Text: status}
	}
	return p.mark(kind, "lane."+status)
}

// endpointState says how an endpoint is set, for operators.
func (p *pages) endpointState(state outbox.EndpointState) mark {
	kind := map[outbox.EndpointState]string{outbox.EndpointActive: "good", outbox.EndpointCleared: "idle", outbox.EndpointUnusable: "bad", outbox.EndpointDisabled: "warn"}[state]
	if kind == "" {
		return mark{Kind: "idle", Sign: "?", Text: string(state)}
	}
	return p.mark(kind, "endpoint."+string(state))
}

// reason returns what a reason means and what to do about it, in words.
func (p *pages) reason(name string) string {
	if text, there := p.texts["reason."+name]; there {
		return text
	}
	return sentence(p.reasons[name])
}

// cause is reason in words for operators.
func (p *pages) cause(name string) string {
	if text := p.causes[name]; text != "" {
		return sentence(text)
	}
	return p.reason(name)
}

// sentence makes a sentence of words that have no capital and no full stop.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	if rest, ours := strings.CutPrefix(text, "walhook could"); ours { // the account knows another name
		text = "we could" + rest
	}
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + strings.TrimSuffix(strings.ReplaceAll(text[size:], "`", ""), ".") + "."
}

func has(list []string, one string) bool { return slices.Contains(list, one) }

// counted writes a whole number with separators, and any other value as it is.
func counted(n any) string {
	text := fmt.Sprint(n)
	if f, ok := n.(float64); ok {
		text = strconv.FormatFloat(f, 'f', 0, 64)
	}
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// when writes an instant with its date.
func when(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format("2006-01-02 15:04:05 UTC")
}

// clock writes the time of today, or the date too.
func clock(at time.Time) string {
	if at = at.UTC(); at.Format(time.DateOnly) != time.Now().UTC().Format(time.DateOnly) {
		return at.Format("2006-01-02 15:04 UTC")
	}
	return at.Format("15:04:05 UTC")
}

// ago writes how long ago an instant was.
func (p *pages) ago(at time.Time) string {
	switch d := time.Since(at); {
	case at.IsZero():
		return ""
	case d < 0:
		return p.text("age.in", p.rough(-d))
	case d < time.Second:
		return p.text("age.now")
	default:
		return p.text("age.ago", p.rough(d))
	}
}

func (p *pages) rough(d time.Duration) string {
	switch {
	case d < time.Minute:
		return p.text("age.seconds", int(d.Seconds()))
	case d < time.Hour:
		return p.text("age.minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return p.text("age.hours", int(d.Hours()))
	}
	return p.text("age.days", int(d.Hours()/24))
}

func duration(ms float64) string {
	switch {
	case ms == 0:
		return "–"
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", ms/1000)
}

func size(bytes any) string {
	n, _ := strconv.ParseFloat(fmt.Sprint(bytes), 64)
	switch {
	case n < 1000:
		return fmt.Sprintf("%.0f B", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", n/1e3)
	default:
		return fmt.Sprintf("%.1f MB", n/1e6)
	}
}

// prettyMost bounds what is shown of a body.
const prettyMost = 256 << 10

// pretty indents JSON, without changing a digit of its numbers. Other text stays.
func pretty(text string) string {
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(text), "", "  "); err != nil {
		b.Reset()
		b.WriteString(text)
	}
	if b.Len() > prettyMost {
		return string(bytes.ToValidUTF8(b.Bytes()[:prettyMost], nil)) + "\n…"
	}
	return b.String()
}
