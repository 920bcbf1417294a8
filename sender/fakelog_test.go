package sender

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"

	"walhook/internal/retry"
	"walhook/outbox"
	"walhook/outbox/outboxtest/memory"
	"walhook/sender/deliver"
)

// fakeLog is an event log in memory whose calls fail when a test says so. The log itself
// passes the cases of package outboxtest.
type fakeLog struct {
	*memory.Log

	mu          sync.Mutex // guards all below
	away        error      // what calls answer while not nil
	lostRelease error      // the answer to Release, which releases the shards all the same
	surplus     []int      // that the next rebalancing names
	unseen      bool       // no change of an endpoint is reported
	left        int
	givenUp     int
	saves       int
	settlements int // transactions
	read        int // bytes of bodies, by the tail
}

func newFakeLog(endpoints ...outbox.Endpoint) *fakeLog {
	return &fakeLog{Log: memory.New(endpoints...)}
}

func (f *fakeLog) append(events ...outbox.Event) { f.Append(events...) }

func (f *fakeLog) set(e outbox.Endpoint) { f.Set(e) }

// fault changes which calls fail.
func (f *fakeLog) fault(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeLog) absent() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.away
}

// Join allows every host: those of these tests are names alone.
func (f *fakeLog) Join(_ context.Context, name string, lease time.Duration, _ func(string) error) (Session, error) {
	if err := f.absent(); err != nil {
		return nil, err
	}
	return &fakeSession{Session: f.Log.Join(name, lease, nil), log: f}, nil
}

// settled settles a batch as a former owner did.
func (f *fakeLog) settled(ctx context.Context, batch ...outbox.Settlement) error {
	earlier := f.Log.Join("an earlier owner", time.Minute, nil)
	if _, err := earlier.Settle(ctx, batch); err != nil {
		return err
	}
	return earlier.Leave(ctx)
}

// fakeSession calls the log, unless the call is to fail.
type fakeSession struct {
	Session
	log *fakeLog
}

func (s *fakeSession) Tail(ctx context.Context, q outbox.TailQuery) (stretch outbox.Stretch, err error) {
	if err := s.log.absent(); err != nil {
		return stretch, err
	}
	stretch, err = s.Session.Tail(ctx, q)
	s.log.fault(func() {
		for i := range stretch.Events {
			if q.Endpoint == 0 {
				s.log.read += len(stretch.Events[i].Body)
			}
		}
	})
	return stretch, err
}

func (s *fakeSession) Expire(ctx context.Context, e outbox.Endpoint, cursor int64) error {
	if err := s.log.absent(); err != nil {
		return err
	}
	return s.Session.Expire(ctx, e, cursor)
}

func (s *fakeSession) Settle(ctx context.Context, batch []outbox.Settlement) ([]outbox.RecordState, error) {
	if err := s.log.absent(); err != nil {
		return nil, err
	}
	s.log.fault(func() { s.log.settlements++ })
	return s.Session.Settle(ctx, batch)
}

func (s *fakeSession) DueRetries(ctx context.Context, q outbox.RetryQuery) (outbox.Retries, error) {
	if err := s.log.absent(); err != nil {
		return outbox.Retries{}, err
	}
	return s.Session.DueRetries(ctx, q)
}

func (s *fakeSession) Save(ctx context.Context, lanes []outbox.LaneState, shards []outbox.Shard) error {
	if err := s.log.absent(); err != nil {
		return err
	}
	s.log.fault(func() { s.log.saves++ })
	return s.Session.Save(ctx, lanes, shards)
}

func (s *fakeSession) Endpoints(ctx context.Context, ids []int64) ([]outbox.Endpoint, error) {
	if err := s.log.absent(); err != nil {
		return nil, err
	}
	return s.Session.Endpoints(ctx, ids)
}

func (s *fakeSession) EndpointsChanged(ctx context.Context, since time.Time) (changed []outbox.EndpointRevision, now time.Time, err error) {
	if err := s.log.absent(); err != nil {
		return nil, since, err
	}
	changed, now, err = s.Session.EndpointsChanged(ctx, since)
	s.log.fault(func() {
		if s.log.unseen {
			changed = nil
		}
	})
	return changed, now, err
}

func (s *fakeSession) Renew(ctx context.Context) (time.Time, error) {
	if err := s.log.absent(); err != nil {
		return time.Time{}, err
	}
	return s.Session.Renew(ctx)
}

func (s *fakeSession) Rebalance(ctx context.Context) (gained outbox.Handover, surplus []int, err error) {
	if err := s.log.absent(); err != nil {
		return gained, nil, err
	}
	s.log.fault(func() { surplus, s.log.surplus = s.log.surplus, nil })
	if surplus != nil {
		return gained, surplus, nil
	}
	return s.Session.Rebalance(ctx)
}

func (s *fakeSession) Release(ctx context.Context, shards []outbox.Shard) error {
	if err := s.log.absent(); err != nil {
		return err
	}
	err := s.Session.Release(ctx, shards)
	s.log.fault(func() {
		s.log.givenUp++
		if s.log.lostRelease != nil {
			err = s.log.lostRelease
		}
	})
	return err
}

func (s *fakeSession) Leave(ctx context.Context) error {
	s.log.fault(func() { s.log.left++ })
	if err := s.log.absent(); err != nil {
		return err
	}
	return s.Session.Leave(ctx)
}

// view is a copy of the log's state.
func (f *fakeLog) view() fakeView {
	v := f.View()
	view := fakeView{attempts: v.Attempts, retry: v.Retries, dead: map[int64]string{}, lanes: v.Lanes, endpoints: v.Endpoints, tails: v.Tails}
	for id, d := range v.Dead {
		view.dead[id] = d.Reason
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	view.left, view.saves = f.left, f.saves
	return view
}

type fakeView struct {
	attempts  map[int64][]outbox.Attempt // by event
	retry     map[int64]memory.Retry
	dead      map[int64]string
	lanes     map[int64]outbox.LaneState
	endpoints map[int64]outbox.Endpoint
	tails     [outbox.Shards]int64
	left      int
	saves     int
}

// delivered lists the events with a delivered attempt, and how often.
func (f *fakeLog) delivered() map[int64]int {
	counts := map[int64]int{}
	for id, attempts := range f.View().Attempts {
		for _, a := range attempts {
			if a.Outcome == string(deliver.Delivered) {
				counts[id]++
			}
		}
	}
	return counts
}

// run is a sender on a fake log with scripted endpoints, in a synctest bubble.
type run struct {
	*Sender
	t    *testing.T
	log  *fakeLog
	stop context.CancelFunc
	done chan error

	mu       sync.Mutex
	arrivals []arrival
	running  map[int64]int // by endpoint
	most     map[int64]int
	script   func(e outbox.Endpoint, event outbox.Event) (deliver.Result, time.Duration)
}

type arrival struct {
	endpoint outbox.Endpoint
	event    outbox.Event
	batch    int // events of the request
	at       time.Time
	result   deliver.Result
}

func startSender(t *testing.T, cfg Config, log *fakeLog, script func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration)) *run {
	t.Helper()
	return startLogged(t, cfg, log, zap.NewNop(), script)
}

func startLogged(t *testing.T, cfg Config, log *fakeLog, lines *zap.Logger, script func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration)) *run {
	t.Helper()
	s, err := New(cfg, log, lines, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r := &run{Sender: s, t: t, log: log, script: script, running: map[int64]int{}, most: map[int64]int{}}
	s.destination = r
	s.tailPoll, s.changesPoll = 5*time.Second, time.Second // fewer turns for hours of fake time
	r.start()
	return r
}

func (r *run) start() {
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.done = stop, make(chan error, 1)
	go func() { r.done <- r.Run(ctx) }()
}

func (r *run) end() {
	r.t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		r.t.Errorf("Run: %v", err)
	}
}

// Deliver is the sender's destination, without a network and HTTP.
func (r *run) Deliver(ctx context.Context, e outbox.Endpoint, event outbox.Event) deliver.Result {
	return r.DeliverBatch(ctx, e, []outbox.Event{event})
}

// DeliverBatch answers as the script does for the first event that it does not deliver.
func (r *run) DeliverBatch(ctx context.Context, e outbox.Endpoint, events []outbox.Event) deliver.Result {
	at := time.Now()
	r.mu.Lock()
	a, takes := r.script(e, events[0])
	for _, event := range events[1:] {
		if a.Outcome == deliver.Delivered {
			a, takes = r.script(e, event)
		}
	}
	r.running[e.ID]++
	r.most[e.ID] = max(r.most[e.ID], r.running[e.ID])
	r.mu.Unlock()
	if retry.Pause(ctx, takes) != nil {
		a = cutShort
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[e.ID]--
	for _, event := range events {
		r.arrivals = append(r.arrivals, arrival{endpoint: e, event: event, batch: len(events), at: time.Now(), result: a})
	}
	a.At, a.Duration = at, time.Since(at)
	return a
}

func (r *run) of(endpoint int64) (of []arrival) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.arrivals {
		if a.endpoint.ID == endpoint {
			of = append(of, a)
		}
	}
	return of
}

func active(id int64) outbox.Endpoint {
	return outbox.Endpoint{ID: id, Account: fmt.Sprint("account", id), Revision: 1, URL: fmt.Sprint("http://", id), State: outbox.EndpointActive}
}

// events makes n events from id first on, of as many records as records says.
func events(endpoint, first int64, n, records int) []outbox.Event {
	list := make([]outbox.Event, n)
	for i := range list {
		list[i] = outbox.Event{
			ID: first + int64(i), Endpoint: endpoint, Revision: 1, Record: fmt.Sprintf("%d/r%d", endpoint, i%records),
			WebhookID: fmt.Sprint("evt_", first+int64(i)), Body: []byte("{}"), CommittedAt: time.Now(),
		}
	}
	return list
}

var (
	ok       = deliver.Result{Outcome: deliver.Delivered, Reason: "2xx"}
	failing  = deliver.Result{Outcome: deliver.Retry, Reason: "5xx", EndpointFault: true}
	rejects  = deliver.Result{Outcome: deliver.Retry, Reason: "4xx"} // this event, not the endpoint
	disables = deliver.Result{Outcome: deliver.Disable, Reason: "410", DisableReason: "the endpoint answered 410 Gone"}
	refused  = deliver.Result{Outcome: deliver.Retry, Reason: "refused", Shown: "unreachable", EndpointFault: true, Unsent: true}
	reset    = deliver.Result{Outcome: deliver.Retry, Reason: "reset", EndpointFault: true}
	hung     = deliver.Result{Outcome: deliver.Retry, Reason: "timeout_header", EndpointFault: true}
	tooLarge = deliver.Result{Outcome: deliver.Dead, Reason: "too_large", Unsent: true}
	ownFault = deliver.Result{Outcome: deliver.Held, Reason: "dns_here", Lasting: true}
	cutShort = deliver.Result{Outcome: deliver.Held, Reason: "shutdown"}
)

// pauses is the result of an endpoint that asks for a pause.
func pauses(d time.Duration) deliver.Result {
	return deliver.Result{Outcome: deliver.Pause, Reason: "503", After: d, EndpointFault: true}
}

// after lets time pass, and waits for all that follows.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func always(a deliver.Result, takes time.Duration) func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration) {
	return func(outbox.Endpoint, outbox.Event) (deliver.Result, time.Duration) { return a, takes }
}

func value(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}

func wantOnce(t *testing.T, log *fakeLog, n int) {
	t.Helper()
	delivered := log.delivered()
	if len(delivered) != n {
		t.Errorf("%d events delivered, want %d", len(delivered), n)
	}
	for id, times := range delivered {
		if times != 1 {
			t.Errorf("event %d delivered %d times", id, times)
		}
	}
}
