package admin

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"walhook/outbox"
)

// clearedBy are the ways in which an account comes to have no URL that can be
// used, and the state that its endpoint then has.
func clearedBy() map[string]struct {
	to    any
	state outbox.EndpointState
} {
	return map[string]struct {
		to    any
		state outbox.EndpointState
	}{
		"null":  {nil, outbox.EndpointCleared},
		"empty": {"", outbox.EndpointCleared},
		"bad":   {"ftp://example.com/", outbox.EndpointUnusable},
	}
}

func TestDisable_ByAnOperatorOutlivesTheURL(t *testing.T) {
	for name, cleared := range clearedBy() {
		t.Run(name, func(t *testing.T) {
			eitherWay(t, func(t *testing.T, f *feed, next func()) {
				f.commit(t, setURL(nil, urlA))
				if _, err := f.admin.DisableEndpoint(t.Context(), "7", outbox.AccountWebhook, "abuse"); err != nil {
					t.Fatal(err)
				}
				next()
				f.commit(t, setURL(urlA, cleared.to))
				f.wantState(t, string(cleared.state))
				next()
				f.commit(t, setURL(cleared.to, urlB), dids.Insert(1, 7, "1"))
				f.wantState(t, "disabled: abuse")

				// In one batch, too.
				f.append(t, batch(f.tx(setURL(urlB, cleared.to)), f.tx(setURL(cleared.to, urlA))))
				f.wantState(t, "disabled: abuse")

				// A snapshot that starts over, before and after the URL comes back.
				f.commit(t, setURL(urlA, cleared.to))
				to, _ := cleared.to.(string)
				f.snapshot(t, 0x9000, load(t, map[string]string{"7": to}))
				f.wantState(t, string(cleared.state))
				f.snapshot(t, 0x9100, load(t, map[string]string{"7": urlB}))
				f.wantState(t, "disabled: abuse")
				if _, err := f.admin.EnableEndpoint(t.Context(), "7", outbox.AccountWebhook); err != nil {
					t.Fatal(err)
				}
				f.wantState(t, "active")
			})
		})
	}
}

// wantState compares account 7's endpoint: its state, and why it is disabled.
func (f *feed) wantState(t *testing.T, want string) {
	t.Helper()
	got := one[string](t, f.world, `SELECT state || CASE WHEN state = 'disabled' THEN ': ' || reason ELSE '' END FROM walhook.endpoint WHERE account = '7'`)
	if got != want {
		t.Errorf("endpoint is %q, want %q", got, want)
	}
}

func TestEnable_LiftsAnOperatorsDisableWhileThereIsNoURL(t *testing.T) {
	for name, cleared := range clearedBy() {
		t.Run(name, func(t *testing.T) {
			f := newFeed(t)
			f.commit(t, setURL(nil, urlA))
			if _, err := f.admin.DisableEndpoint(t.Context(), "7", outbox.AccountWebhook, "abuse"); err != nil {
				t.Fatal(err)
			}
			f.commit(t, setURL(urlA, cleared.to))
			e, err := f.admin.EnableEndpoint(t.Context(), "7", outbox.AccountWebhook)
			if err != nil || e.State != cleared.state || e.DisabledBy != "" || e.Reason == "" {
				t.Errorf("%+v, %v", e, err)
			}
			f.commit(t, setURL(cleared.to, urlB))
			f.wantState(t, "active")
		})
	}
}

// What was held while an endpoint was disabled is what its lane reads first.
func TestEnable_WhatWasHeldIsThereToBeSent(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	s, _ := f.join(t)
	if _, err := f.admin.DisableEndpoint(t.Context(), "7", outbox.AccountWebhook, "asked for"); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		f.commit(t, dids.Insert(n, 7, "1"))
	}
	if err := s.Save(t.Context(), []outbox.LaneState{{Endpoint: 1, Revision: 2, Behind: true, Cursor: 1}}, []outbox.Shard{{ID: 1, Tail: 6}}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.admin.EnableEndpoint(t.Context(), "7", outbox.AccountWebhook); err != nil {
		t.Fatal(err)
	}
	f.expire(t)
	next, h := f.join(t)
	if len(h.Lanes) != 1 || !h.Lanes[0].Behind || h.Lanes[0].Cursor != 1 {
		t.Fatalf("handed over %+v", h.Lanes)
	}
	held, err := next.Tail(t.Context(), outbox.TailQuery{Endpoint: 1, After: h.Lanes[0].Cursor, Upto: h.Horizon, Unsettled: true, Limit: 100, MaxBytes: 1 << 20})
	var ids []int64
	for _, e := range held.Events {
		ids = append(ids, e.ID)
	}
	if err != nil || !slices.Equal(ids, []int64{2, 3, 4, 5, 6}) {
		t.Errorf("the lane reads events %v, %v", ids, err)
	}
}

func TestStore_ListsHowDeliveryStands(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7), account(8))
	s, _ := f.join(t)
	now := time.Now()
	lane := outbox.LaneState{Endpoint: f.EndpointOf(t, "7"), Revision: 1, Behind: true, Cursor: 1, Open: true, OpenUntil: now.Add(time.Minute), Opens: 3,
		FailingSince: now.Add(-30 * time.Hour), Stage: 1, LastReason: "5xx"}
	if err := s.Save(t.Context(), []outbox.LaneState{lane}, nil); err != nil {
		t.Fatal(err)
	}
	f.Exec(t, `INSERT INTO walhook.retry SELECT $1, n, 'dids:1', 0, NULL, '' FROM generate_series(1, $2::int) n`, lane.Endpoint, CountLimit+5)
	f.Exec(t, `INSERT INTO walhook.dead_letter SELECT now(), $1, n, 'dids:1', '', '', '', now(), 1, '5xx', 2, '{}' FROM generate_series(1, 3) n`, f.EndpointOf(t, "8"))
	got, err := f.admin.ListEndpoints(t.Context())
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	var lines []string
	for _, e := range got {
		lines = append(lines, fmt.Sprintf("%s behind=%t open=%t stage=%d failing=%t retry=%d dead=%d", e.Account, e.Lane.Behind, e.Lane.Open, e.Lane.Stage,
			about(e.Lane.FailingSince, lane.FailingSince), e.Retries, e.Dead))
	}
	wantLines(t, lines, fmt.Sprintf("7 behind=true open=true stage=1 failing=true retry=%d dead=0", CountLimit),
		"8 behind=false open=false stage=0 failing=false retry=0 dead=3")
}
