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
	"walhook/sender/deliver"
)

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

// Deliver is the sender's destination: no network, and nothing of HTTP.
func (r *run) Deliver(ctx context.Context, e outbox.Endpoint, event outbox.Event) deliver.Result {
	at := time.Now()
	r.mu.Lock()
	a, takes := r.script(e, event)
	r.running[e.ID]++
	r.most[e.ID] = max(r.most[e.ID], r.running[e.ID])
	r.mu.Unlock()
	if retry.Pause(ctx, takes) != nil {
		a = cutShort
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[e.ID]--
	r.arrivals = append(r.arrivals, arrival{endpoint: e, event: event, at: time.Now(), result: a})
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

// pauses asks to be left alone for a while.
func pauses(d time.Duration) deliver.Result {
	return deliver.Result{Outcome: deliver.Pause, Reason: "503", After: d, EndpointFault: true}
}

// after lets time pass, and what it brings about.
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
