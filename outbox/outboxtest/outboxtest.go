package outboxtest

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"walhook/outbox"
	"walhook/sender"
)

// Harness is a log for one case alone, empty at first. It is the sender's log plus
// what other parts do to a log. Its methods fail t on an error.
type Harness interface {
	sender.Log

	// Endpoint makes an active endpoint of a shard, of an account of its own.
	Endpoint(t testing.TB, shard int) outbox.Endpoint
	// SetURL gives an endpoint another URL under its next revision. "" clears the
	// endpoint and ends its feed: the events in the log belong to an earlier feed.
	SetURL(t testing.TB, endpoint int64, url string) outbox.Endpoint
	// Await raises an endpoint's revision and asks its sender to confirm it.
	Await(t testing.TB, endpoint int64) outbox.Endpoint
	// Confirmed returns the newest revision of an endpoint that a sender confirmed.
	Confirmed(t testing.TB, endpoint int64) int64

	// Append appends events as one batch and returns them as they are stored.
	Append(t testing.TB, drafts ...Draft) []outbox.Event
	// Age makes every event in the log older than retention. Events that are appended
	// later are not.
	Age(t testing.TB)
	// Trim runs retention once. It returns false if the log kept events because some
	// are undelivered.
	Trim(t testing.TB) bool

	// Lapse ends the lease of the sender with a name, as time would.
	Lapse(t testing.TB, name string)

	// Attempts returns the stored attempts of an event, in order of time.
	Attempts(t testing.TB, event outbox.Event) []outbox.Attempt
	// Dead returns the dead letters, in order of id.
	Dead(t testing.TB) []DeadLetter
}

// Draft is an event to append.
type Draft struct {
	Endpoint int64
	Record   int // of the endpoint
	Size     int // of the body, at least
}

// DeadLetter is an event that walhook does not attempt any more. Event has only ID,
// Endpoint, Record, WebhookID, Schema, Type and Body.
type DeadLetter struct {
	Event    outbox.Event
	Attempts int
	Reason   string
}

// Run runs every case on a log of its own, which open makes.
func Run(t *testing.T, open func(t testing.TB) Harness) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(newCase(t, open(t)))
		})
	}
}

// testCase is one promise, in plain words, and its check.
type testCase struct {
	name string
	run  func(c *world)
}

func cases() []testCase {
	return slices.Concat(tailCases(), leaseCases(), settleCases(), retryCases(), batchCases(), handoverCases(), endpointCases(), trimCases())
}

// world is a log with the helpers of the cases.
type world struct {
	testing.TB
	Harness
	ctx     context.Context
	senders int
}

func newCase(t testing.TB, h Harness) *world { return &world{TB: t, Harness: h, ctx: t.Context()} }

// holder is a sender with the name under which it joined.
type holder struct {
	sender.Session
	name string
}

// member joins a sender that holds nothing yet.
func (w *world) member() holder {
	w.Helper()
	w.senders++
	name := fmt.Sprint("sender ", w.senders)
	s, err := w.Join(w.ctx, name, time.Minute, func(string) error { return nil })
	w.must(err)
	return holder{s, name}
}

// owner joins a sender, which takes every shard that it can.
func (w *world) owner() (holder, outbox.Handover) {
	w.Helper()
	s := w.member()
	gained, _ := w.rebalance(s)
	return s, gained
}

func (w *world) rebalance(s holder) (outbox.Handover, []int) {
	w.Helper()
	gained, surplus, err := s.Rebalance(w.ctx)
	w.must(err)
	return gained, surplus
}

// successor ends the lease of an owner and joins the next one.
func (w *world) successor(before holder) (holder, outbox.Handover) {
	w.Helper()
	w.Lapse(w.TB, before.name)
	return w.owner()
}

func (w *world) endpoint(shard int) outbox.Endpoint {
	w.Helper()
	return w.Endpoint(w.TB, shard)
}

// events appends events of one endpoint, one for each given record.
func (w *world) events(e outbox.Endpoint, records ...int) []outbox.Event {
	w.Helper()
	drafts := make([]Draft, len(records))
	for i, record := range records {
		drafts[i] = Draft{Endpoint: e.ID, Record: record, Size: 8}
	}
	return w.Append(w.TB, drafts...)
}

func (w *world) settle(s holder, batch ...outbox.Settlement) []outbox.RecordState {
	w.Helper()
	states, err := s.Settle(w.ctx, batch)
	w.must(err)
	return states
}

func (w *world) save(s holder, lanes []outbox.LaneState, shards ...outbox.Shard) {
	w.Helper()
	w.must(s.Save(w.ctx, lanes, shards))
}

// tail reads a stretch, without bounds unless the query has some.
func (w *world) tail(s holder, q outbox.TailQuery) outbox.Stretch {
	w.Helper()
	q.Limit, q.MaxBytes = cmp.Or(q.Limit, 1000), cmp.Or(q.MaxBytes, 1<<30)
	stretch, err := s.Tail(w.ctx, q)
	w.must(err)
	return stretch
}

// due reads the rows of retry of an endpoint that are due within a time from now.
func (w *world) due(s holder, e outbox.Endpoint, in time.Duration, exclude ...int64) outbox.Retries {
	w.Helper()
	due, err := s.DueRetries(w.ctx, outbox.RetryQuery{Endpoint: e.ID, Now: time.Now().Add(in), Limit: 1000, MaxBytes: math.MaxInt32, Exclude: exclude})
	w.must(err)
	return due
}

func (w *world) endpointNow(s holder, id int64) outbox.Endpoint {
	w.Helper()
	list, err := s.Endpoints(w.ctx, []int64{id})
	w.must(err)
	if len(list) != 1 {
		w.Fatalf("endpoint %d is read as %d endpoints", id, len(list))
	}
	return list[0]
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) wantEvents(what string, got []outbox.Event, want ...outbox.Event) {
	w.Helper()
	if !slices.Equal(ids(got), ids(want)) {
		w.Errorf("%s: events %v, want %v", what, ids(got), ids(want))
	}
}

// wantDead compares the dead letters: for each its event, reason and attempts.
func (w *world) wantDead(what string, want ...DeadLetter) {
	w.Helper()
	got := w.Dead(w.TB)
	line := func(d DeadLetter) string {
		return fmt.Sprintf("%d of %d, %s %s %s %s %q: %s after %d", d.Event.ID, d.Event.Endpoint, d.Event.Record, d.Event.WebhookID,
			d.Event.Schema, d.Event.Type, d.Event.Body, d.Reason, d.Attempts)
	}
	if !slices.EqualFunc(got, want, func(a, b DeadLetter) bool { return line(a) == line(b) }) {
		w.Errorf("%s: dead letters are", what)
		for _, d := range got {
			w.Errorf("\t%.200s", line(d))
		}
		for _, d := range want {
			w.Errorf("\twant %.200s", line(d))
		}
	}
}

// wantStates compares states of records: blocked for events in retry, free for events
// that have left it.
func (w *world) wantStates(what string, got []outbox.RecordState, blocked, free []outbox.Event) {
	w.Helper()
	line := func(endpoint int64, record string, blocked bool) string {
		return fmt.Sprintf("%d %s blocked=%t", endpoint, record, blocked)
	}
	var have, want []string
	for _, s := range got {
		have = append(have, line(s.Endpoint, s.Record, s.Blocked))
	}
	for _, e := range blocked {
		want = append(want, line(e.Endpoint, e.Record, true))
	}
	for _, e := range free {
		want = append(want, line(e.Endpoint, e.Record, false))
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		w.Errorf("%s: records stand as %v, want %v", what, have, want)
	}
}

// aMoment is how much an instant may differ after a conversion to the log's clock.
const aMoment = 3 * time.Second

func about(a, b time.Time) bool { return a.IsZero() == b.IsZero() && a.Sub(b).Abs() < aMoment }

func ids(events []outbox.Event) []int64 {
	list := []int64{}
	for _, e := range events {
		list = append(list, e.ID)
	}
	return list
}

func list(events ...outbox.Event) []outbox.Event { return events }

// Settlements, as a sender makes them.

func delivered(e outbox.Event) outbox.Settlement {
	return outbox.Settlement{Event: e, Disposition: outbox.Delivered, Attempt: attempt(e, "delivered", "2xx", 204)}
}

func retry(e outbox.Event, in time.Duration) outbox.Settlement {
	return outbox.Settlement{Event: e, Disposition: outbox.Retry, Attempt: attempt(e, "retry", "5xx", 503), RetryAt: time.Now().Add(in)}
}

func dead(e outbox.Event) outbox.Settlement {
	return outbox.Settlement{Event: e, Disposition: outbox.Dead, Attempt: attempt(e, "dead", "4xx", 404)}
}

func parked(e outbox.Event) outbox.Settlement {
	return outbox.Settlement{Event: e, Disposition: outbox.Parked}
}

// again returns the settlement of an event that was read from retry.
func again(s outbox.Settlement) outbox.Settlement {
	s.FromRetry = true
	return s
}

// gone returns a settlement that disables the endpoint.
func gone(e outbox.Event, reason string) outbox.Settlement {
	s := retry(e, time.Hour)
	s.Attempt.Outcome, s.Attempt.Status, s.Disable = "disable", 410, reason
	return s
}

func attempt(e outbox.Event, outcome, reason string, status int) *outbox.Attempt {
	// The start time distinguishes the attempts of an event, also when a fake clock
	// stands still.
	at := time.Now().UTC().Truncate(time.Microsecond).Add(time.Duration(e.Attempts) * time.Microsecond)
	return &outbox.Attempt{
		At: at, Number: e.Attempts + 1, Revision: e.Revision, Duration: 5 * time.Millisecond,
		Status: status, Outcome: outcome, Reason: reason, Detail: "detail",
	}
}

func sortShards(shards []outbox.Shard) []outbox.Shard {
	shards = slices.Clone(shards)
	slices.SortFunc(shards, func(a, b outbox.Shard) int { return a.ID - b.ID })
	return shards
}

func tailOf(h outbox.Handover, shard int) int64 {
	for _, s := range h.Shards {
		if s.ID == shard {
			return s.Tail
		}
	}
	return -1
}
