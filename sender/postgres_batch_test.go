package sender

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/outbox"
)

// batchRequest is a request as a receiver of batches saw it.
type batchRequest struct {
	id, body string
	events   []string // webhook-event-ids
	status   int
}

// batchReceiver verifies and reads batches, and checks the order of each record.
type batchReceiver struct {
	t      *testing.T
	server *httptest.Server
	answer func(r *batchRequest, n int) int // with what status; n is how many came before

	mu       sync.Mutex
	requests []batchRequest
	times    map[string]int // event → how often acknowledged
	last     map[string]int // record → its last event acknowledged for the first time
	busy     map[string]int // record → requests that hold events of it
}

type batchElement struct {
	Record string `json:"record"`
	N      int    `json:"n"`
}

func newBatchReceiver(t *testing.T, answer func(r *batchRequest, n int) int) *batchReceiver {
	r := &batchReceiver{t: t, answer: answer, times: map[string]int{}, last: map[string]int{}, busy: map[string]int{}}
	official, err := standardwebhooks.NewWebhook(secretA)
	if err != nil {
		t.Fatal(err)
	}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // the sender was killed
		}
		if err := official.Verify(body, req.Header); err != nil {
			t.Errorf("verify: %v", err)
		}
		got := batchRequest{id: req.Header.Get("webhook-id"), body: string(body), events: strings.Split(req.Header.Get("webhook-event-ids"), ",")}
		var elements []batchElement
		if err := json.Unmarshal(body, &elements); err != nil || len(elements) != len(got.events) {
			t.Errorf("%v: %d ids of %.200s", err, len(got.events), body)
			return
		}
		records := map[string]bool{}
		for i, e := range elements {
			if want := fmt.Sprint("evt_", e.N); got.events[i] != want { // appendBatchSQL
				t.Errorf("element %d is event %s, and webhook-event-ids says %s", i, want, got.events[i])
			}
			records[e.Record] = true
		}
		r.mu.Lock()
		for record := range records {
			if r.busy[record]++; r.busy[record] > 1 {
				t.Errorf("record %s is in two requests at the same time", record)
			}
		}
		n := len(r.requests)
		r.requests = append(r.requests, got)
		r.mu.Unlock()
		status := r.answer(&got, n)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.requests[n].status = status
		for record := range records {
			r.busy[record]--
		}
		if status == http.StatusOK {
			r.take(&got, elements)
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(r.server.Close)
	return r
}

// take notes what a request acknowledges. The caller holds mu.
func (r *batchReceiver) take(got *batchRequest, elements []batchElement) {
	for i, e := range elements {
		if r.times[got.events[i]]++; r.times[got.events[i]] > 1 {
			continue
		}
		if e.N < r.last[e.Record] {
			r.t.Errorf("record %s: %d after %d", e.Record, e.N, r.last[e.Record])
		}
		r.last[e.Record] = e.N
	}
}

// seen is a copy of what came.
func (r *batchReceiver) seen() []batchRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// check wants each of n events acknowledged once, and as often as again allows.
func (r *batchReceiver) check(n int, again bool) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.times) != n {
		r.t.Errorf("%d of %d events arrived", len(r.times), n)
	}
	for id, times := range r.times {
		if times != 1 && !again {
			r.t.Errorf("%s arrived %d times", id, times)
		}
	}
}

// openBatches makes an outbox with one webhook, which takes batches.
func openBatches(t *testing.T, r *batchReceiver, batch int) (*outbox.Store, *pgx.Conn) {
	t.Helper()
	store, conn := openOutbox(t, r.server.URL)
	execute(t, conn, `UPDATE walhook.endpoint SET webhook = '0123456789abcdef0123456789abcdef', batch = $1, changed_at = clock_timestamp()`, batch)
	return store, conn
}

const appendBatchSQL = `
	INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
	SELECT g, 1, 1, 'dids:' || g % $3, 'evt_' || g, 'dids', 'update', now(), now(), convert_to(format('{"record":"%s","n":%s}', g % $3, g), 'UTF8')
	FROM generate_series($1::bigint, $2::bigint) g`

const deliveredSQL = `SELECT count(DISTINCT event_id) FROM walhook.attempt WHERE outcome = 'delivered'`

func TestBatch_OnPostgresOrderHoldsAcrossBatchesThatFail(t *testing.T) {
	t.Parallel()
	r := newBatchReceiver(t, func(*batchRequest, int) int {
		switch p := rand.Float64(); {
		case p < .1:
			return http.StatusBadRequest
		case p < .15:
			return http.StatusRequestEntityTooLarge
		case p < .2:
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	store, conn := openBatches(t, r, 20)
	execute(t, conn, appendBatchSQL, 1, 800, 100)
	stop := startReal(t, store)
	eventually(t, conn, 1, `SELECT (count(DISTINCT event_id) >= 300)::int FROM walhook.attempt WHERE outcome = 'delivered'`)
	execute(t, conn, appendBatchSQL, 801, 1600, 100)
	stop() // amid deliveries
	stop = startReal(t, store)
	eventually(t, conn, 1600, deliveredSQL)
	eventually(t, conn, 0, `SELECT count(*) FROM walhook.retry`)
	stop()
	r.check(1600, false)
	sizes := map[int]int{}
	for _, one := range r.seen() {
		sizes[len(one.events)]++
		if len(one.events) > 20 {
			t.Errorf("%d events in a request", len(one.events))
		}
	}
	if sizes[20] < 10 {
		t.Errorf("sizes of requests: %v", sizes)
	}
}

// What waits behind a failed batch goes out in batches, too.
func TestBatch_OnPostgresWhatWaitsBehindAFailedOneIsABatch(t *testing.T) {
	t.Parallel()
	failed, behind := make(chan struct{}), make(chan struct{})
	r := newBatchReceiver(t, func(_ *batchRequest, n int) int {
		if n > 0 {
			return http.StatusOK
		}
		close(failed)
		<-behind // so that what is appended meanwhile has to wait for it
		return http.StatusInternalServerError
	})
	store, conn := openBatches(t, r, 100)
	execute(t, conn, appendBatchSQL, 1, 40, 40)
	stop := startReal(t, store, time.Second)
	<-failed
	execute(t, conn, appendBatchSQL, 41, 160, 40) // three more of each record
	close(behind)
	eventually(t, conn, 160, deliveredSQL)
	stop()
	r.check(160, false)
	if n := len(r.seen()); n > 12 {
		t.Errorf("%d requests for 4 events of each of 40 records, want few", n)
	} else {
		t.Logf("%d requests", n)
	}
}

func TestBatch_OnPostgresAFailedOneComesAgainAsItWasAlsoFromAnotherSender(t *testing.T) {
	t.Parallel()
	failed := make(chan struct{})
	r := newBatchReceiver(t, func(r *batchRequest, n int) int {
		if n == 0 {
			defer close(failed)
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	store, conn := openBatches(t, r, 100)
	execute(t, conn, appendBatchSQL, 1, 60, 20)
	stop := startReal(t, store, time.Second)
	<-failed
	eventually(t, conn, 60, `SELECT count(*) FROM walhook.attempt`)
	stop()
	execute(t, conn, appendBatchSQL, 61, 70, 5)
	stop = startReal(t, store, time.Second)
	eventually(t, conn, 70, deliveredSQL)
	stop()
	r.check(70, false)
	requests := r.seen()
	same := slices.IndexFunc(requests[1:], func(one batchRequest) bool { return one.id == requests[0].id })
	if len(requests[0].events) != 60 || same < 0 || requests[1+same].body != requests[0].body {
		t.Errorf("of %d requests the first had %d events, and none was it again, byte for byte", len(requests), len(requests[0].events))
	}
	for _, one := range requests[1:] { // nothing overtakes it
		if one.id != requests[0].id && slices.ContainsFunc(one.events, func(id string) bool { return slices.Contains(requests[0].events, id) }) {
			t.Errorf("an event of the first request came in another one: %v", one.events)
		}
	}
}

func TestBatch_OnPostgresOnePoisonousEventOfHundredIsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		status   int
		repeated bool // the second request is the first again
	}{
		{"400", http.StatusBadRequest, true}, {"413", http.StatusRequestEntityTooLarge, false}, {"500", http.StatusInternalServerError, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newBatchReceiver(t, func(r *batchRequest, _ int) int {
				if slices.Contains(r.events, "evt_37") {
					return test.status
				}
				return http.StatusOK
			})
			store, conn := openBatches(t, r, 100)
			execute(t, conn, appendBatchSQL, 1, 100, 100)
			stop := startReal(t, store, 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond)
			// Or it does not end: each request that has the event is an attempt of it.
			eventually(t, conn, 1, `SELECT (EXISTS (SELECT FROM walhook.dead_letter) OR count(*) > 30)::int FROM walhook.attempt WHERE event_id = 37`)
			if n := len(r.seen()); n > 30 {
				stop()
				t.Fatalf("%d requests for 100 events of which one is refused, want few: the event was not left alone", n)
			}
			eventually(t, conn, 1, `SELECT count(*) FROM walhook.dead_letter`)
			eventually(t, conn, 99, deliveredSQL)
			eventually(t, conn, 0, `SELECT count(*) FROM walhook.retry`)
			stop()
			r.check(99, false)
			requests := r.seen()
			for i, one := range requests { // each attempt names its request
				var n int
				if err := conn.QueryRow(t.Context(), `SELECT count(DISTINCT event_id) FROM walhook.attempt WHERE batch = $1`, one.id).Scan(&n); err != nil || n != len(one.events) {
					t.Errorf("%v: attempts of %d events name request %d, which carried %d", err, n, i, len(one.events))
				}
			}
			if len(requests[0].events) != 100 {
				t.Fatalf("the first request has %d events", len(requests[0].events))
			}
			if again := requests[1].id == requests[0].id && requests[1].body == requests[0].body; again != test.repeated {
				t.Errorf("the second request is the first again: %t, want %t", again, test.repeated)
			}
			alone := 0
			for _, one := range requests {
				if len(one.events) == 1 && one.events[0] == "evt_37" {
					alone++
				}
			}
			if alone < 2 || len(requests) > 30 {
				t.Errorf("%d requests, %d of them with the event alone", len(requests), alone)
			}
			var dead string
			if err := conn.QueryRow(t.Context(), `SELECT e.webhook_id FROM walhook.dead_letter d JOIN walhook.event e ON e.id = d.event_id`).Scan(&dead); err != nil || dead != "evt_37" {
				t.Errorf("%v, dead is %s", err, dead)
			}
		})
	}
}

func TestBatch_OnPostgresAKilledSenderLosesNothing(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{}, 1)
	held := make(chan struct{})
	r := newBatchReceiver(t, func(_ *batchRequest, n int) int {
		if n == 5 {
			begun <- struct{}{}
			<-held
		}
		if n == 1 || n == 3 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	_, conn := openBatches(t, r, 10)
	url := conn.Config().ConnString()
	execute(t, conn, appendBatchSQL, 1, 500, 40)
	one := startChild(t, url, "one")
	<-begun
	signalChild(t, one, syscall.SIGKILL)
	_ = one.Wait()
	close(held)
	startChild(t, url, "two")
	eventually(t, conn, 500, deliveredSQL)
	eventually(t, conn, 0, `SELECT count(*) FROM walhook.retry`)
	r.check(500, true)
}
