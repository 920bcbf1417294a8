package endtoend

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// TestRotation_WithoutAnOverlapNoDeliveryAfterTheCommandIsSignedWithTheOldSecret
// rotates again and again while two senders deliver without pause. What a sender begins
// later than a moment after the command has ended is signed with the new secret
// alone.
func TestRotation_WithoutAnOverlapNoDeliveryAfterTheCommandIsSignedWithTheOldSecret(t *testing.T) {
	t.Parallel()
	type arrival struct {
		at        time.Time
		header    http.Header
		body      []byte
		signature string
	}
	var mu sync.Mutex
	var arrivals []arrival
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		at := time.Now()
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/1" {
			arrivals = append(arrivals, arrival{at, r.Header, body, r.Header.Get("webhook-signature")})
		}
	}))
	t.Cleanup(server.Close)
	s := newShop(t, 40, func(account string) string { return server.URL + "/" + account })
	startChild(t, "run", "--role", "publisher", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", s.catalog, "--listen", "off")
	for range 2 {
		startChild(t, "run", "--role", "sender", "--outbox", s.outbox.URL, "--listen", "off", "--allow-cidr", "127.0.0.0/8")
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				s.db.Exec(t, fmt.Sprintf("INSERT INTO item (id, account) VALUES (%d, 1)", 1000+n))
			}
		}
	}()
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(arrivals)
	}
	eventually(t, 40*time.Second, func() bool { return count() > 20 })
	outbox := s.outbox.Connect(t)
	const moment = 150 * time.Millisecond
	for round := range 4 {
		old, _, _ := strings.Cut(mustRun(t, "endpoints", "secret", "1", "--outbox", s.outbox.URL), "\n")
		overlap := "0"
		if round == 1 {
			overlap = "1h"
		}
		began := time.Now()
		mustRun(t, "endpoints", "rotate", "1", "--overlap", overlap, "--outbox", s.outbox.URL)
		ended := time.Now()
		// Without a word of the senders it takes 12 seconds, by which any of them knows.
		if took := ended.Sub(began); took > 11*time.Second {
			t.Errorf("round %d: rotating took %s: no sender confirmed it", round, took)
		}
		before := count()
		eventually(t, 20*time.Second, func() bool { return count() > before+60 })
		verifier, err := standardwebhooks.NewWebhook(old)
		if err != nil {
			t.Fatal(err)
		}
		wrong, most := 0, 0
		mu.Lock()
		late := slices.DeleteFunc(slices.Clone(arrivals), func(a arrival) bool { return !a.at.After(ended.Add(moment)) })
		mu.Unlock()
		for _, a := range late {
			// How long an attempt takes to arrive is the machine's time.
			if began := attemptBegan(t, outbox, a.header.Get("webhook-id")); began.After(ended.Add(moment)) {
				most = max(most, len(strings.Fields(a.signature)))
				if verifier.Verify(a.body, a.header) == nil {
					wrong++
				}
			}
		}
		if overlap == "0" && (wrong > 0 || most != 1) {
			t.Errorf("round %d: %d deliveries are signed with the secret that has ended, up to %d signatures", round, wrong, most)
		}
		if overlap != "0" && (wrong == 0 || most != 2) {
			t.Errorf("round %d: %d deliveries are signed with the secret before, up to %d signatures", round, wrong, most)
		}
	}
	close(stop)
	<-done
}

// attemptBegan is when a sender began the first attempt of an event. It is known once that
// is settled.
func attemptBegan(t *testing.T, outbox *pgx.Conn, id string) (at time.Time) {
	t.Helper()
	const sql = `SELECT a.at FROM walhook.attempt a JOIN walhook.event e ON e.endpoint = a.endpoint AND e.id = a.event_id WHERE e.webhook_id = $1 ORDER BY a.at LIMIT 1`
	eventually(t, patience, func() bool {
		err := outbox.QueryRow(t.Context(), sql, id).Scan(&at)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			t.Fatal(err)
		}
		return err == nil
	})
	return at
}
