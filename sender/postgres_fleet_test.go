package sender

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walhook/outbox/admin"
)

func TestSender_OnPostgresOneProbeInTheWholeFleet(t *testing.T) {
	t.Parallel()
	var requests, running, most atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		<-time.After(300 * time.Millisecond) // for others to come meanwhile
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer server.Close()
	store, conn := openOutbox(t, server.URL)
	execute(t, conn, appendSQL, 1, 100, 1)
	execute(t, conn, `
		INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, open_until, opens, failing_since, last_reason)
		VALUES (1, 1, true, 0, true, clock_timestamp() + interval '1 s', 4, clock_timestamp(), '5xx')`)
	var stops []func()
	for range 3 {
		stops = append(stops, startReal(t, store))
	}
	eventually(t, conn, 1, `SELECT count(*) FROM walhook.attempt`)
	<-time.After(3 * time.Second) // the next is due after four minutes at the earliest
	if n, m := requests.Load(), most.Load(); n != 1 || m != 1 {
		t.Errorf("%d requests, %d at once; want one probe of three senders", n, m)
	}
	for i, stop := range stops { // the shard goes from one to the next
		stop()
		if n := requests.Load(); n != 1 {
			t.Errorf("%d requests once sender %d has stopped", n, i+1)
		}
	}
	var opens int
	var soon bool
	if err := conn.QueryRow(t.Context(), `SELECT opens, open_until < clock_timestamp() + interval '1 min' FROM walhook.lane WHERE open`).Scan(&opens, &soon); err != nil {
		t.Fatal(err)
	}
	if opens != 5 || soon {
		t.Errorf("after the hand-overs the breaker has opened %d times, and ends soon: %v", opens, soon)
	}
}

func TestSender_OnPostgresClearingAndSettingAURLAgain(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	var held atomic.Int32
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if len(r.Header.Get("webhook-id")) == len("evt_100") {
			held.Add(1)
			<-release
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	defer old.Close()
	defer let()
	fresh := newReceiver(t, 0)
	store, conn := openOutbox(t, old.URL)
	stop := startReal(t, store)
	execute(t, conn, appendSQL, 10, 19, 1)
	eventually(t, conn, 10, `SELECT count(*) FROM walhook.dead_letter WHERE reason = '4xx'`) // the whole short schedule
	execute(t, conn, `UPDATE walhook.endpoint SET ordering = 'record', revision = revision + 1, changed_at = clock_timestamp()`)
	execute(t, conn, appendSQL, 100, 149, 1)
	waitFor(t, "attempt in flight", func() bool { return held.Load() > 0 })
	execute(t, conn, `UPDATE walhook.endpoint SET url = NULL, state = 'cleared', reason = 'cleared', feed_from = 150, revision = revision + 1, changed_at = clock_timestamp()`)
	// A sender confirms that it starts nothing with a secret that has ended.
	execute(t, conn, `UPDATE walhook.endpoint SET url = $1, state = 'active', reason = '', revision = revision + 1, changed_at = clock_timestamp(), ended_secret_at = clock_timestamp()`, fresh.server.URL)
	execute(t, conn, appendSQL, 150, 199, 1)
	// These changes were not made by a publisher, whose events would tell of
	// them: the sender looks for itself, twice a second.
	eventually(t, conn, 1, `SELECT count(*) FROM walhook.endpoint WHERE confirmed_revision = revision`)
	let() // the attempts of the earlier feed end now, and fail
	eventually(t, conn, 50, `SELECT count(*) FROM walhook.attempt WHERE outcome = 'delivered'`)
	eventually(t, conn, 50, `SELECT count(*) FROM walhook.dead_letter WHERE reason = 'expired'`)
	eventually(t, conn, 0, `SELECT count(*) FROM walhook.retry`)
	stop()
	fresh.check("the new URL", 50)
	eventually(t, conn, 0, `SELECT count(*) FROM walhook.attempt a JOIN walhook.dead_letter d USING (endpoint, event_id) WHERE a.outcome = 'delivered'`)
}

func TestSender_OnPostgresStrictOrderStandsStillWithoutParking(t *testing.T) {
	t.Parallel()
	var refuse atomic.Bool
	refuse.Store(true)
	r := newReceiver(t, 0)
	inner := r.server.Config.Handler
	r.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if refuse.Load() && req.Header.Get("webhook-id") == "evt_50" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		inner.ServeHTTP(w, req)
	})
	store, conn := openOutbox(t, r.server.URL)
	if _, err := admin.New(store).SetOrdering(t.Context(), "1", "strict"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.New(store).SetOrdering(t.Context(), "1", "any"); err == nil {
		t.Error("an ordering that there is not is taken")
	}
	execute(t, conn, appendSQL, 1, 500, 1)
	// Long enough for whatever a busy machine does before the endpoint is well again.
	schedule := slices.Repeat([]time.Duration{200 * time.Millisecond}, int(2*patience/(200*time.Millisecond)))
	stop := startReal(t, store, schedule...)
	eventually(t, conn, 49, `SELECT count(*) FROM walhook.attempt WHERE outcome = 'delivered'`)
	waitFor(t, "retry", func() bool {
		var n int
		return conn.QueryRow(t.Context(), `SELECT count(*) FROM walhook.attempt WHERE event_id = 50`).Scan(&n) == nil && n >= 2
	})
	eventually(t, conn, 1, `SELECT count(*) FROM walhook.retry`)
	stop()
	stop = startReal(t, store, schedule...)
	refuse.Store(false)
	eventually(t, conn, 500, `SELECT count(*) FROM walhook.attempt WHERE outcome = 'delivered'`)
	stop()
	r.check("strict", 500)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, body := range r.order[1:] {
		if number(t, body) < number(t, r.order[i]) {
			t.Fatalf("%s after %s", body, r.order[i])
		}
	}
}
