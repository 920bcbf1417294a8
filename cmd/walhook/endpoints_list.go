package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"walhook/outbox"
	"walhook/outbox/admin"
)

func writeEndpoints(out io.Writer, endpoints []admin.EndpointInfo) error {
	if len(endpoints) == 0 {
		_, err := fmt.Fprintln(out, "no endpoints: no account has set a web_hook_url")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ENDPOINT\tACCOUNT\tWEBHOOK\tURL\tSTATE\tDETAIL")
	now := time.Now()
	for i := range endpoints {
		e := &endpoints[i]
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\n", e.ID, accountCell(e.Account), cell(e.Webhook), cell(e.URL), e.State, printable(endpointDetail(e, now)))
	}
	return table.Flush()
}

// accountCell names an endpoint's account.
func accountCell(account string) string {
	if account == outbox.NoAccount {
		return "(feed)"
	}
	return cell(account)
}

// endpointDetail describes an endpoint beside its state.
func endpointDetail(e *admin.EndpointInfo, now time.Time) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if !e.EndedAt.IsZero() {
		add("the account was deleted")
	}
	switch {
	case e.DisabledBy == outbox.ByOperator && e.State != outbox.EndpointDisabled:
		add("%s, and held by an operator", e.Reason)
	case e.DisabledBy != "":
		add("%s", disabledText(e.DisabledBy, e.Reason))
	case e.Reason != "":
		add("%s", e.Reason)
	}
	if e.AlsoDisabledBy != "" {
		add("after that still %s", disabledText(e.AlsoDisabledBy, e.AlsoDisableReason))
	}
	if since := e.HeldSince; !since.IsZero() {
		add("held since %s", clock(since))
	}
	if l := &e.Lane; !l.HeldSince.IsZero() && e.State == outbox.EndpointActive {
		add("held since %s by a local error: %s", clock(l.HeldSince), l.HeldReason)
	}
	if e.Ordering != outbox.OrderingRecord {
		add("ordering %s", e.Ordering)
	}
	if since := e.Lane.FailingSince; !since.IsZero() && e.State == outbox.EndpointActive {
		add("failing since %s (%s)", since.UTC().Format(time.RFC3339), e.Lane.LastReason)
		if e.Lane.Stage > 0 {
			add("warning %d", e.Lane.Stage)
		}
	}
	switch lane := e.LaneStatus(now); lane {
	case outbox.LaneOpen:
		add("open until %s", e.Lane.OpenUntil.UTC().Format(time.RFC3339))
	case outbox.LanePaused:
		add("paused until %s", e.Lane.PausedUntil.UTC().Format(time.RFC3339))
	case outbox.LaneBehind, outbox.LaneHalfOpen:
		add("%s", lane)
	}
	if e.Retries > 0 {
		add("%s in retry", countText(e.Retries))
	}
	if e.Dead > 0 {
		add("%s dead", countText(e.Dead))
	}
	return strings.Join(parts, "; ")
}

// disabledText says why an endpoint is disabled, and by whom.
func disabledText(by, reason string) string {
	if strings.HasPrefix(reason, "disabled by") {
		return reason
	}
	return fmt.Sprintf("%s (disabled by %s)", reason, by)
}

func countText(n int) string {
	if n >= admin.CountLimit {
		return fmt.Sprintf("%d or more", n)
	}
	return fmt.Sprint(n)
}

// endpointJSON is one line of endpoints --json.
type endpointJSON struct {
	Endpoint   int64  `json:"endpoint"` // the number in log lines and for replay
	Account    string `json:"account"`
	Webhook    string `json:"webhook"`
	URL        string `json:"url"`
	State      string `json:"state"`
	Reason     string `json:"reason"`
	DisabledBy string `json:"disabled_by,omitempty"`
	// Who has it disabled once the operator's word ends, and why.
	AlsoDisabledBy    string `json:"also_disabled_by,omitempty"`
	AlsoDisableReason string `json:"also_disable_reason,omitempty"`

	Ordering  string    `json:"ordering"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	ChangedAt time.Time `json:"changed_at"`

	Lane         string    `json:"lane"`
	FailingSince time.Time `json:"failing_since,omitzero"`
	Stage        int       `json:"stage,omitempty"`
	LastReason   string    `json:"last_reason,omitempty"`
	HeldSince    time.Time `json:"held_since,omitzero"` // by a local error, or by stored data that cannot be used
	HeldReason   string    `json:"held_reason,omitempty"`
	OpenUntil    time.Time `json:"open_until,omitzero"`
	PausedUntil  time.Time `json:"paused_until,omitzero"`
	Retries      int       `json:"retries"`
	DeadLetters  int       `json:"dead_letters"`
}

func writeEndpointsJSON(out io.Writer, endpoints []admin.EndpointInfo) error {
	lines := make([]endpointJSON, len(endpoints))
	now := time.Now()
	for i := range endpoints {
		lines[i] = endpointLine(&endpoints[i], now)
	}
	return writeJSON(out, lines)
}

func endpointLine(e *admin.EndpointInfo, now time.Time) endpointJSON {
	since, reason := e.HeldSince, ""
	if since.IsZero() && e.State == outbox.EndpointActive {
		since, reason = e.Lane.HeldSince, e.Lane.HeldReason
	}
	return endpointJSON{
		Endpoint: e.ID, Account: e.Account, Webhook: e.Webhook, URL: e.URL, State: string(e.State), Reason: e.Reason,
		DisabledBy: e.DisabledBy, AlsoDisabledBy: e.AlsoDisabledBy, AlsoDisableReason: e.AlsoDisableReason, Ordering: string(e.Ordering), EndedAt: e.EndedAt, ChangedAt: e.ChangedAt,
		Lane: string(e.LaneStatus(now)), FailingSince: e.Lane.FailingSince, Stage: e.Lane.Stage, LastReason: e.Lane.LastReason, HeldSince: since, HeldReason: reason,
		OpenUntil: inForce(e, e.Lane.OpenUntil, now), PausedUntil: inForce(e, e.Lane.PausedUntil, now), Retries: e.Retries, DeadLetters: e.Dead,
	}
}

// inForce is the end of a pause of e's lane, as long as it binds the lane; zero after that.
func inForce(e *admin.EndpointInfo, until, now time.Time) time.Time {
	if e.Lane.Revision < e.Revision || !now.Before(until) {
		return time.Time{}
	}
	return until
}
