package outbox

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"walhook/outbox/route"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Whatever a publisher writes, it writes behind its fence.
func TestPublisher_WritesNothingAfterAnotherTookOver(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.webhook(t, "7", "daily", "hook = 'number'", daily)
	f.commit(t, dids.Insert(1, 7, "312"))
	f.notice(t, "7", 1)
	f.exec(t, `INSERT INTO walhook.request (endpoint, webhook_ids, rate, until_id, total) VALUES (1, '{evt_none}', 1, 1, 0)`)
	request := one[int64](t, f.world, "SELECT id FROM walhook.request")
	ended := route.DayEnd{Endpoint: one[int64](t, f.world, "SELECT endpoint FROM walhook.daily"), Ended: time.Now(), Began: time.Now(), Zone: "UTC"}
	day := endedDay{endpoint: ended.Endpoint, day: "2024-06-10", zone: "UTC"}
	f.exec(t, "INSERT INTO walhook.daily_run (endpoint, day, began_at, ended_at, zone, commit_lsn, ordinal) VALUES ($1, '2024-06-10', now(), now(), 'UTC', '0/1', 0)", ended.Endpoint)
	if _, err := newPublisher(t, f.world).TakeOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	contents := func() string {
		return strings.Join(all[string](t, f.world, `SELECT to_jsonb(s)::text FROM (
			SELECT 'event' t, to_jsonb(e) r FROM walhook.event e UNION ALL SELECT 'owner', to_jsonb(e) FROM walhook.owner e
			UNION ALL SELECT 'position', to_jsonb(e) FROM walhook.position e UNION ALL SELECT 'source', to_jsonb(e) FROM walhook.source e
			UNION ALL SELECT 'daily', to_jsonb(e) FROM walhook.daily e UNION ALL SELECT 'daily_run', to_jsonb(e) FROM walhook.daily_run e
			UNION ALL SELECT 'inbox', to_jsonb(e) FROM walhook.inbox e UNION ALL SELECT 'request', to_jsonb(e) FROM walhook.request e
			UNION ALL SELECT 'unrouted', to_jsonb(e) FROM walhook.unrouted e) s ORDER BY 1`), "\n")
	}
	before := contents()
	p := f.publisher
	b := batch(f.tx(dids.Insert(2, 7, "313"), faxes.Insert(2, 99, "1")))
	done := 0
	for _, write := range []struct {
		name string
		run  func() error
	}{
		{"an append", func() error { return p.Append(t.Context(), b) }},
		{"an append by halves", func() error {
			return p.appendIsolated(t.Context(), &b, route.Part{End: len(b.Changes)}, errors.New("refused"), &done)
		}},
		{"the inbox", func() error { _, err := p.appendInbox(t.Context()); return err }},
		{"a replay", func() error { _, err := p.replayStep(t.Context(), request); return err }},
		{"the days of webhooks that changed", func() error { return p.turnDays(t.Context(), nil, map[int64]route.DayEnd{ended.Endpoint: ended}) }},
		{"a day's counts", func() error { return p.sendDayAt(t.Context(), day, time.Now()) }},
		{"the end of days", func() error { return p.commit(t.Context(), route.EndDays(p.view, time.Now().AddDate(1, 0, 0))) }},
		{"another timeline", func() error { return p.Follow(t.Context(), 9, "another") }},
		{"a snapshot", func() error {
			return p.LoadSnapshot(t.Context(), schemas.LSN(0x9000), func(catalog.SnapshotSink) error { return nil })
		}},
	} {
		p.live = true // it has not noticed
		if err := write.run(); !errors.Is(err, ErrFenced) {
			t.Errorf("%s: %v, want it refused", write.name, err)
		}
	}
	if done != 0 {
		t.Errorf("%d changes are said to be stored", done)
	}
	if after := contents(); after != before {
		t.Errorf("stored are\n%s\nwere\n%s", after, before)
	}
}

// Each mechanism has one place. What this finds elsewhere belongs there.
func TestStatements_HaveOnePlaceForEachMechanism(t *testing.T) {
	t.Parallel()
	mechanisms := []struct {
		what, in string
		pattern  *regexp.Regexp
	}{
		{"the fences of publisher and sender", "transaction.go", regexp.MustCompile(`assert_(epoch|append|sender)`)},
		{"a way into the dead letters", "dead_letter.go", regexp.MustCompile(`INSERT INTO walhook\.dead_letter|COPY walhook\.dead_letter`)},
		{"a way into the attempts", "settle.go", regexp.MustCompile(`(INSERT INTO|COPY) walhook\.attempt`)},
		{"a literal number of shards", "", regexp.MustCompile(`%\s*32\b`)},
	}
	var files []string
	for _, pattern := range []string{"*.go", "admin/*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, m := range mechanisms {
		var places []string
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if m.pattern.Match(text) {
				places = append(places, name)
			}
		}
		if want := strings.Fields(m.in); !slices.Equal(places, want) {
			t.Errorf("%s: in %q, want it in %q alone", m.what, places, want)
		}
	}
}
