package main

import (
	"encoding/json"
	"io"
	"math"
	"time"

	"walhook/outbox/admin"
)

// statusJSON is the form of status --json. An unknown value is null.
type statusJSON struct {
	Source    *sourceJSON    `json:"source"` // null without --source
	Outbox    partJSON       `json:"outbox"`
	Position  *positionJSON  `json:"position"`
	Rates     *ratesJSON     `json:"throughput"`
	Backlog   *backlogJSON   `json:"backlog"`
	Lanes     map[string]int `json:"lanes"`
	Endpoints map[string]int `json:"endpoints"`
	Worst     []worstJSON    `json:"worst"`
	Disabled  []disabledJSON `json:"disabled"`
	Held      []heldJSON     `json:"held"`         // walhook cannot send there until somebody acts
	Dead      map[string]int `json:"dead_letters"` // by reason
	Senders   []senderJSON   `json:"senders"`
	Unowned   []int          `json:"shards_without_owner"`
	Gaps      []gapJSON      `json:"gaps"`
	Catalog   *catalogJSON   `json:"catalog"`
	Failover  *failoverJSON  `json:"failover"`
	Resyncs   []resyncJSON   `json:"resyncs"` // in progress
	// Reconciled is the newest gap whose changes were sent after it was accepted; null for none.
	Reconciled *reconciledJSON `json:"reconciled"`
}

type resyncJSON struct {
	ID      int64     `json:"id"`
	Account string    `json:"account"`
	Webhook string    `json:"webhook"`
	Sent    int64     `json:"sent"`
	Total   int64     `json:"total"` // 0 before it began
	AskedAt time.Time `json:"asked_at"`
}

// partJSON says whether a database answers.
type partJSON struct {
	Reachable bool   `json:"reachable"`
	Error     string `json:"error,omitempty"`
}

type sourceJSON struct {
	partJSON
	Slot          string      `json:"slot"`
	Active        bool        `json:"active"`
	Reader        *readerJSON `json:"reader,omitempty"`    // the process that reads the slot
	HeldBack      string      `json:"held_back,omitempty"` // why the source sends nothing
	WALStatus     string      `json:"wal_status,omitempty"`
	WALEnd        string      `json:"wal_end,omitempty"`
	LagBytes      *uint64     `json:"lag_bytes"`
	LagSeconds    *float64    `json:"lag_seconds"`
	RetainedBytes *float64    `json:"retained_bytes"`
	LimitBytes    *float64    `json:"limit_bytes"` // null for no limit
}

type readerJSON struct {
	PID         int    `json:"pid"`
	Application string `json:"application"`
	Address     string `json:"address"`
	Foreign     bool   `json:"foreign"` // another program than walhook
}

type positionJSON struct {
	Publisher string    `json:"publisher"`
	Epoch     int64     `json:"epoch"`
	TakenAt   time.Time `json:"taken_at"`
	Position  string    `json:"position"`
	Flush     string    `json:"flush"`
	StoredAt  time.Time `json:"stored_at,omitzero"`
}

type ratesJSON struct {
	Window    float64 `json:"window_seconds"`
	Appended  float64 `json:"appended_per_second"`
	Delivered float64 `json:"delivered_per_second"`
	Failed    float64 `json:"failed_per_second"`
}

type backlogJSON struct {
	Events int64   `json:"events"` // an estimate
	Oldest float64 `json:"oldest_seconds"`
}

type worstJSON struct {
	Endpoint     int64     `json:"endpoint"` // the number in log lines
	Account      string    `json:"account"`
	URL          string    `json:"url"`
	Lane         string    `json:"lane"`
	Reason       string    `json:"reason"`
	FailingSince time.Time `json:"failing_since,omitzero"`
	Stage        int       `json:"stage,omitempty"`
	Retries      int       `json:"retries"`
	DeadLetters  int       `json:"dead_letters"`
	Oldest       float64   `json:"oldest_seconds"`
}

type disabledJSON struct {
	Endpoint   int64     `json:"endpoint"`
	Account    string    `json:"account"`
	URL        string    `json:"url"`
	Reason     string    `json:"reason"`
	DisabledBy string    `json:"disabled_by"`
	Since      time.Time `json:"since"`
}

type heldJSON struct {
	Endpoint int64     `json:"endpoint"`
	Account  string    `json:"account"`
	URL      string    `json:"url"`
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
}

type senderJSON struct {
	Name      string    `json:"name"`
	StartedAt time.Time `json:"started_at"`
	Lease     float64   `json:"lease_seconds"` // remaining time
	Shards    []int     `json:"shards"`
}

// failoverJSON is null where the outbox never failed over.
type failoverJSON struct {
	NotedAt  time.Time `json:"noted_at"`
	Timeline int32     `json:"timeline"`
}

type catalogJSON struct {
	Since   time.Time    `json:"in_force_since,omitzero"`
	From    string       `json:"from_lsn,omitempty"` // what committed there or later is routed by it
	Pending *pendingJSON `json:"pending"`            // null if no changed one waits
}

type pendingJSON struct {
	AskedAt time.Time `json:"asked_at"`
	Reason  string    `json:"reason"` // why it is not in force yet; "" if nobody has tried
}

type reconciledJSON struct {
	Gap        int64     `json:"gap"`
	AcceptedAt time.Time `json:"accepted_at"`
	Missed     int64     `json:"missed"`
	Done       bool      `json:"done"`
	Inserts    int64     `json:"inserts"`
	Updates    int64     `json:"updates"`
	Deletes    int64     `json:"deletes"`
	Results    int64     `json:"results"`
	Events     int64     `json:"events"`
	Note       string    `json:"note"`
}

type gapJSON struct {
	FoundAt time.Time `json:"found_at"`
	From    string    `json:"from"`
	To      string    `json:"to,omitempty"`
	Reason  string    `json:"reason"`
}

// writeJSON writes one object, on one line if more will follow.
func (v *statusView) writeJSON(out io.Writer, oneLine bool) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	if !oneLine {
		encoder.SetIndent("", "  ")
	}
	return encoder.Encode(v.toJSON())
}

func (v *statusView) toJSON() statusJSON {
	j := statusJSON{Source: v.sourceJSON(), Outbox: partOf(v.outboxErr)}
	st := v.outbox
	if st == nil {
		return j
	}
	p := &st.Publisher
	j.Position = &positionJSON{p.Name, p.Epoch, p.TakenAt, p.Position.String(), p.Flush.String(), p.StoredAt}
	j.Rates = &ratesJSON{admin.ThroughputWindow.Seconds(), st.Appended, st.Delivered, st.Failed}
	j.Backlog = &backlogJSON{st.Backlog, st.Oldest.Seconds()}
	j.Lanes, j.Dead, j.Unowned = st.Lanes, st.DeadLetters, append([]int{}, st.Unowned...)
	j.Endpoints = map[string]int{}
	for state, n := range st.Endpoints {
		j.Endpoints[string(state)] = n
	}
	j.Worst = make([]worstJSON, len(st.Worst))
	for i := range st.Worst {
		w := &st.Worst[i]
		j.Worst[i] = worstJSON{w.ID, w.Account, w.URL, string(w.Status), w.Why, w.Lane.FailingSince, w.Lane.Stage, w.Retries, w.Dead, w.Oldest.Seconds()}
	}
	j.Disabled = make([]disabledJSON, len(st.Disabled))
	for i := range st.Disabled {
		e := &st.Disabled[i]
		j.Disabled[i] = disabledJSON{e.ID, e.Account, e.URL, e.Reason, e.DisabledBy, e.ChangedAt}
	}
	j.Held = make([]heldJSON, len(st.Held))
	for i := range st.Held {
		h := &st.Held[i]
		j.Held[i] = heldJSON{h.ID, h.Account, h.URL, h.Why, h.Since}
	}
	j.Senders = make([]senderJSON, len(st.Senders))
	for i, s := range st.Senders {
		j.Senders[i] = senderJSON{s.Name, s.StartedAt, s.Lease.Seconds(), append([]int{}, s.Shards...)}
	}
	j.Gaps = make([]gapJSON, len(st.Gaps))
	for i, g := range st.Gaps {
		j.Gaps[i] = gapJSON{FoundAt: g.FoundAt, From: g.From.String(), Reason: g.Reason}
		if g.To != 0 {
			j.Gaps[i].To = g.To.String()
		}
	}
	if g := st.Reconciled; g != nil {
		j.Reconciled = &reconciledJSON{g.ID, g.AcceptedAt, g.Missed, !g.Left, g.Inserts, g.Updates, g.Deletes, g.Results, g.Events, g.Note}
	}
	j.Catalog = &catalogJSON{Since: st.Catalog.Since}
	if st.Catalog.From != 0 {
		j.Catalog.From = st.Catalog.From.String()
	}
	if !st.Catalog.Pending.IsZero() {
		j.Catalog.Pending = &pendingJSON{st.Catalog.Pending, st.Catalog.Why}
	}
	j.Resyncs = make([]resyncJSON, len(st.Resyncs))
	for i, r := range st.Resyncs {
		j.Resyncs[i] = resyncJSON{r.ID, r.Account, r.Webhook, r.Sent, r.Total, r.AskedAt}
	}
	if !st.Failover.IsZero() {
		j.Failover = &failoverJSON{st.Failover, st.Timeline}
	}
	return j
}

func (v *statusView) sourceJSON() *sourceJSON {
	if !v.asked {
		return nil
	}
	j := &sourceJSON{partJSON: partOf(v.sourceErr), Slot: v.slot}
	if r := v.source; r != nil {
		j.Active, j.WALStatus, j.WALEnd, j.RetainedBytes = r.Active, r.WALStatus, r.WALEnd.String(), &r.Retained
		j.HeldBack = r.Held()
		if r.Active {
			j.Reader = &readerJSON{r.Reader.PID, r.Reader.Application, r.Reader.Address, r.Reader.Foreign()}
		}
		if !math.IsInf(r.Limit, 1) {
			j.LimitBytes = &r.Limit
		}
		if bytes, seconds, known := v.lag(); known {
			j.LagBytes, j.LagSeconds = &bytes, &seconds
		}
	}
	return j
}

func partOf(err error) partJSON {
	if err != nil {
		return partJSON{Error: err.Error()}
	}
	return partJSON{Reachable: true}
}
