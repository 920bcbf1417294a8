package endtoend

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"walhook/internal/chaos"
	"walhook/internal/receiver"
)

// TestOutage_IsAFewLinesOfTheLog takes the outbox away for some seconds, during
// which every part of the process tries to reach it again and again, and has
// a thousand messages refused.
func TestOutage_IsAFewLinesOfTheLog(t *testing.T) {
	t.Parallel()
	mood := receiver.NewSwitch(receiver.Healthy())
	server, err := receiver.Start(receiver.Options{Behave: func(string) receiver.Behaviour { return mood.Behave }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s := newShop(t, 3, server.URL)
	a := newActor(t, "all", "--source", s.db.URL, "--slot", s.slot, "--catalog", s.catalog, "--allow-cidr", "127.0.0.0/8")
	a.args = append(a.args, "--outbox", a.link(t, s.outbox.URL))
	startAll(t, a)
	s.db.Exec(t, "INSERT INTO item (account) SELECT 1 + n % 3 FROM generate_series(1, 30) n")
	eventually(t, 30*time.Second, func() bool { return server.Count() == 30 })
	lines := func() int {
		log, err := os.ReadFile(a.logs)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(log), "\n")
	}

	before := lines()
	a.links[0].Set(chaos.Weather{Refusing: true})
	a.links[0].Reset()
	s.db.Exec(t, "INSERT INTO item (account) SELECT 1 + n % 3 FROM generate_series(1, 30) n")
	linger(t.Context(), 6*time.Second) // dozens of calls fail meanwhile
	a.links[0].Set(chaos.Weather{})
	eventually(t, 30*time.Second, func() bool { return server.Count() >= 60 })
	if n := lines() - before; n < 2 || n > 20 {
		t.Errorf("%d lines for an outage of six seconds", n)
	}

	before = lines()
	began := time.Now()
	mood.Set(receiver.Status(http.StatusInternalServerError))
	s.db.Exec(t, "SELECT pg_logical_emit_message(true, 'walhook', '{') FROM generate_series(1, 1000)")
	s.db.Exec(t, "INSERT INTO item (account) SELECT 1 + n % 3 FROM generate_series(1, 3000) n")
	eventually(t, 30*time.Second, func() bool { return a.said(t, "logical message refused: malformed") > 0 && server.Count() >= 63 })
	a.stop(t)
	// Lines a minute of one text, and the summary.
	repeated := 21 * (1 + int(time.Since(began).Minutes()))
	if n := a.said(t, "logical message refused: malformed"); n > repeated {
		t.Errorf("%d lines for a thousand messages", n)
	}
	if a.said(t, `"line":"logical message refused: malformed"`) == 0 {
		t.Error("what was left out is not told")
	}
	if n := lines() - before; n > 200 {
		t.Errorf("%d lines for receivers that fail", n)
	}
}
