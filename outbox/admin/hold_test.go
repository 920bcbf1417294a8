package admin

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"walhook/outbox"
	"walhook/schemas"
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
			about(e.Lane.FailingSince, lane.FailingSince, now), e.Retries, e.Dead))
	}
	wantLines(t, lines, fmt.Sprintf("7 behind=true open=true stage=1 failing=true retry=%d dead=0", CountLimit),
		"8 behind=false open=false stage=0 failing=false retry=0 dead=3")
}

// A hold outlives the webhook that it was made for, whichever way the account
// comes back with the host.
func TestHold_AnAccountsOwnURLCannotBypassIt(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	if _, err := f.admin.DisableEndpoint(t.Context(), "7", outbox.AccountWebhook, "abuse"); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		return one[string](t, f.world, "SELECT concat(state, ' ', disabled_by) FROM walhook.endpoint WHERE account = '7' AND ended_at IS NULL")
	}
	f.Exec(t, "DELETE FROM walhook.endpoint")
	f.takeOver(t)
	f.commit(t, setAccountURL(7, nil, "http://user@EXAMPLE.com.:8443/other"))
	if got := state(); got != "disabled operator" {
		t.Errorf("a new row with the held host is %s", got)
	}
	if _, err := f.admin.EnableEndpoint(t.Context(), "7", outbox.AccountWebhook); err != nil {
		t.Fatal(err)
	}
	if got := state(); got != "active " {
		t.Errorf("enabled it is %s", got)
	}
	if err := f.admin.HoldAccount(t.Context(), "7", "abuse"); err != nil {
		t.Fatal(err)
	}
	f.commit(t, setAccountURL(7, "http://user@EXAMPLE.com.:8443/other", urlB))
	if got := state(); got != "disabled operator" {
		t.Errorf("in a held account it is %s", got)
	}
	if _, err := f.admin.ReleaseAccount(t.Context(), "7"); err != nil {
		t.Fatal(err)
	}
	if got := state(); got != "active " {
		t.Errorf("released it is %s", got)
	}
}

// wantHeld wants a webhook that cannot be made because of a hold.
func (f *feed) wantHeld(t *testing.T, w Webhook) {
	t.Helper()
	made, err := f.admin.CreateWebhook(t.Context(), w, Once{}, nil)
	if _, held := errors.AsType[*outbox.HeldError](err); !held {
		t.Errorf("a webhook of account %s for %s: %v, %v; want a hold", w.Account, w.URL, made.ID, err)
	}
}

// wantActive compares which of the endpoints with a URL are sent to.
func (f *feed) wantActive(t *testing.T, want ...string) {
	t.Helper()
	wantLines(t, all[string](t, f.world, "SELECT account || ' ' || url FROM walhook.endpoint WHERE state = 'active' ORDER BY account, url"), want...)
}

// The token of an account above acts for that account in those below it: its
// hold counts there, for what it makes, moves and enables.
func TestHold_AParentAccountCannotBypassItThroughASubaccount(t *testing.T) {
	f := newFeed(t)
	f.commit(t, memberInsert(7, nil), memberInsert(8, 7), memberInsert(9, 7))
	f.Exec(t, "UPDATE walhook.endpoint SET url = NULL, state = 'cleared', reason = 'x'") // their own are not what this is about
	token, _, err := f.admin.CreateToken(t.Context(), Token{Account: "7", Subaccounts: true}, Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	by := Caller{Token: token.ID, Account: "7"}
	mine := func(account, url string) Webhook {
		w := hook(account, url)
		w.By = by
		return w
	}
	first := f.create(t, mine("7", "https://evil.example/a"))
	before := f.create(t, mine("8", "https://EVIL.example./b"))
	moved := f.create(t, mine("8", "https://good.example/"))
	f.create(t, hook("9", "https://evil.example/own")) // the account's own
	if _, err := f.admin.DisableEndpoint(t.Context(), "7", first.ID, "abuse"); err != nil {
		t.Fatal(err)
	}
	f.wantActive(t, "8 https://good.example/", "9 https://evil.example/own")
	for _, account := range []string{"7", "8", "9"} {
		f.wantHeld(t, mine(account, "http://u:p@Evil.EXAMPLE:8443/c"))
	}
	edit := func(id string, change func(*Webhook) error) error {
		_, err := f.admin.EditWebhook(t.Context(), by, "8", id, change)
		return err
	}
	if _, held := errors.AsType[*outbox.HeldError](edit(moved.ID, func(w *Webhook) error { w.URL = "https://ｅvil。example/"; return nil })); !held {
		t.Error("moved to the held host")
	}
	if err := edit(before.ID, func(w *Webhook) error { w.Enabled = true; return nil }); !errors.Is(err, ErrHeldByOperator) {
		t.Errorf("enabled: %v", err)
	}
	if _, held := errors.AsType[*outbox.HeldError](f.admin.CheckHeld(t.Context(), by, "9", "https://evil.example/own")); !held {
		t.Error("it may test the held host through the account below")
	}
	if err := f.admin.CheckHeld(t.Context(), Caller{}, "9", "https://evil.example/own"); err != nil {
		t.Errorf("another account: %v", err)
	}
	// What another set is not changed by it where it is held: neither within the host
	// nor in what is sent there. To stop it is allowed.
	theirs := one[string](t, f.world, "SELECT webhook FROM walhook.endpoint WHERE account = '9' AND url = 'https://evil.example/own'")
	for what, change := range map[string]func(*Webhook){
		"another path":       func(w *Webhook) { w.URL = "https://evil.example/mine" },
		"another spelling":   func(w *Webhook) { w.URL = "https://EVIL.example.:444/own" },
		"with a password":    func(w *Webhook) { w.URL = "https://u:p@evil.example/own" },
		"accounts below too": func(w *Webhook) { w.IncludeSubaccounts = true },
		"more of the events": func(w *Webhook) { w.Hook = HookAll },
		"a body of its own":  func(w *Webhook) { w.CustomData = []byte(`{"a":1}`) },
	} {
		_, err := f.admin.EditWebhook(t.Context(), by, "9", theirs, func(w *Webhook) error { change(w); return nil })
		if _, held := errors.AsType[*outbox.HeldError](err); !held {
			t.Errorf("the webhook of the account below, %s: %v; want a hold", what, err)
		}
		if _, err := f.admin.EditWebhook(t.Context(), Caller{}, "9", theirs, func(w *Webhook) error { change(w); w.URL = "https://evil.example/own"; return nil }); err != nil {
			t.Errorf("an operator, %s: %v", what, err)
		}
	}
	for _, enabled := range []bool{false, true} {
		if _, err := f.admin.EditWebhook(t.Context(), map[bool]Caller{false: by, true: {}}[enabled], "9", theirs, func(w *Webhook) error { w.Enabled, w.Ask = enabled, &enabled; return nil }); err != nil {
			t.Errorf("enabled %t: %v", enabled, err)
		}
	}
	// Enabled below, where it is the hold of the account above that counts.
	if _, err := f.admin.EnableEndpoint(t.Context(), "8", before.ID); err == nil {
		t.Error("enabled below, while the account above is held")
	}
	if _, err := f.admin.EnableEndpoint(t.Context(), "7", first.ID); err != nil {
		t.Fatal(err)
	}
	f.wantActive(t, "7 https://evil.example/a", "8 https://EVIL.example./b", "8 https://good.example/", "9 https://evil.example/own")

	// What is disabled below holds whose token set it.
	if _, err := f.admin.DisableEndpoint(t.Context(), "8", before.ID, "abuse"); err != nil {
		t.Fatal(err)
	}
	f.wantHeld(t, mine("9", "https://evil.example/"))
	if _, err := f.admin.EnableEndpoint(t.Context(), "8", before.ID); err != nil {
		t.Fatal(err)
	}
	if err := f.admin.HoldAccount(t.Context(), "7", "abuse"); err != nil {
		t.Fatal(err)
	}
	f.wantActive(t, "9 https://evil.example/own")
	f.wantHeld(t, mine("9", "https://any.example/"))
	if r, err := f.admin.ReleaseAccount(t.Context(), "7"); r.Enabled != 4 || err != nil {
		t.Errorf("released %+v, %v", r, err)
	}
}

// A disabled endpoint that is moved holds the new host as well as the old one:
// by the API, by the account's column, in one batch and by a snapshot.
func TestHold_FollowsADisabledEndpointToItsNewURL(t *testing.T) {
	const a, b = "https://a.example/", "https://b.example/"
	for name, move := range map[string]func(*testing.T, *feed, string){
		"API": func(t *testing.T, f *feed, id string) {
			if _, err := f.admin.EditWebhook(t.Context(), Caller{}, "7", id, func(w *Webhook) error { w.URL = b; return nil }); err != nil {
				t.Fatal(err)
			}
		},
		"column": func(t *testing.T, f *feed, _ string) { f.commit(t, setAccountURL(7, a, b)) },
		"by way of none": func(t *testing.T, f *feed, _ string) {
			f.commit(t, setAccountURL(7, a, nil))
			f.commit(t, setAccountURL(7, nil, b))
		},
		"in one batch": func(t *testing.T, f *feed, _ string) {
			f.append(t, batch(f.tx(setAccountURL(7, a, "")), f.tx(setAccountURL(7, "", b))))
		},
		"snapshot": func(t *testing.T, f *feed, _ string) {
			f.snapshot(t, 0x9000, load(t, map[string]string{"7": b}))
			f.commitLSN = 0x9000
		},
		"with a password": func(t *testing.T, f *feed, _ string) { f.commit(t, setAccountURL(7, a, "https://u:p@B.example:444/")) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFeed(t, withKey(1))
			f.commit(t, users.Insert(7, "n", a, nil))
			id := outbox.AccountWebhook
			if name == "API" {
				f.commit(t, setAccountURL(7, a, nil))
				id = f.create(t, hook("7", a)).ID
			}
			f.create(t, hook("7", "https://u:p@b.EXAMPLE./twin"))
			if _, err := f.admin.DisableEndpoint(t.Context(), "7", id, "abuse"); err != nil {
				t.Fatal(err)
			}
			move(t, f, id)
			f.takeOver(t)
			f.wantActive(t)
			f.wantHeld(t, hook("7", "http://A.example/"))
			f.wantHeld(t, hook("7", "http://B.example/"))
			wantLines(t, holdsOf(t, f, "7"), "a.example", "b.example")
			e, err := f.admin.EnableEndpoint(t.Context(), "7", id)
			if err != nil || e.State != outbox.EndpointActive {
				t.Fatal(e.State, err)
			}
			if n := one[int](t, f.world, "SELECT count(*) FROM walhook.endpoint WHERE state = 'active'"); n != 2 {
				t.Errorf("%d endpoints are sent to, want the twin too", n)
			}
			wantLines(t, holdsOf(t, f, "7"))
		})
	}
}

func holdsOf(t *testing.T, f *feed, account string) (hosts []string) {
	t.Helper()
	list, err := f.admin.Holds(t.Context(), account, Hold{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range list {
		hosts = append(hosts, h.Host)
	}
	return hosts
}

// A snapshot that starts over applies each hold to the URLs that it brings.
func TestHold_ASnapshotAppliesIt(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7), account(8))
	if _, err := f.admin.HoldHost(t.Context(), "7", "https://Held.example:8443/", "abuse"); err != nil {
		t.Fatal(err)
	}
	if err := f.admin.HoldAccount(t.Context(), "9", "unpaid"); err != nil {
		t.Fatal(err)
	}
	f.snapshot(t, 0x9000, load(t, map[string]string{"7": "http://u:p@HELD.example./x", "8": "https://held.example/", "9": "https://new.example/"}))
	f.wantActive(t, "8 https://held.example/")
	if r, err := f.admin.ReleaseHost(t.Context(), "7", "HELD.example."); r.Enabled != 1 || err != nil {
		t.Errorf("released %+v, %v", r, err)
	}
	if _, err := f.admin.ReleaseHost(t.Context(), "7", "held.example"); !errors.Is(err, ErrNoHold) {
		t.Errorf("released again: %v", err)
	}
	f.snapshot(t, 0x9100, load(t, map[string]string{"7": "http://held.example/x", "8": "https://held.example/", "9": "https://new.example/"}))
	f.wantActive(t, "7 http://held.example/x", "8 https://held.example/")
}

// Holds that an earlier version wrote down as the URL spells the host are
// normalised by the next setup.
func TestHold_OfAnEarlierVersionIsNormalised(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.Exec(t, `INSERT INTO walhook.hold (account, host, reason) VALUES ('7', 'ｅvil。example', 'abuse'), ('7', '0x7f.1', 'abuse'), ('7', '[2001:db8:0::1]', 'abuse'), ('7', 'plain.example', 'abuse')`)
	f.Exec(t, `UPDATE walhook.endpoint SET state = 'disabled', disabled_by = 'operator', reason = 'x', disabled_reason = 'x', url = 'https://u@Moved.example.'`)
	f.create(t, hook("7", "https://evil.example/"))
	if err := outbox.Migrate(t.Context(), f.DB.URL); err != nil {
		t.Fatal(err)
	}
	wantLines(t, holdsOf(t, f, "7"), "127.0.0.1", "2001:db8::1", "evil.example", "moved.example", "plain.example")
	f.wantActive(t)
}

// However the account's column and the API come together with an operator's word,
// nothing that the account has leads to a held host.
func TestHold_CatchesEndpointsThatAreMadeConcurrently(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	for n := range 20 {
		host := fmt.Sprintf("h%d.example", n)
		done := make(chan error, 2)
		go func() {
			_, err := f.admin.HoldHost(t.Context(), "7", host, "abuse")
			done <- err
		}()
		go func() {
			_, err := f.admin.CreateWebhook(t.Context(), hook("7", "https://"+host+"/"), Once{}, nil)
			if _, held := errors.AsType[*outbox.HeldError](err); held {
				err = nil
			}
			done <- err
		}()
		f.commit(t, users.Update(row(7, "n", "https://old.example/", nil), row(7, "n", "https://"+host+"/own", nil)))
		for range 2 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if got := all[string](t, f.world, "SELECT url FROM walhook.endpoint WHERE state = 'active'"); len(got) > 0 {
			t.Fatalf("%v are sent to, although %s is held", got, host)
		}
	}
}

// What is made while its account ends has ended with it, whichever comes first.
func TestAccount_NothingIsMadeConcurrentlyWithItsEnd(t *testing.T) {
	f := newFeed(t)
	for n := range 25 {
		id := fmt.Sprint(100 + n)
		f.commit(t, users.Insert(100+n, "n", "https://example.com/", nil))
		token, _, err := f.admin.CreateToken(t.Context(), Token{Account: id}, Once{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		by := Caller{Token: token.ID, Account: id}
		done := make(chan error, 2)
		stop := time.Now().Add(30 * time.Millisecond)
		create := func(f func() error) {
			for time.Now().Before(stop) {
				if err := f(); err != nil && !errors.Is(err, ErrAccountEnded) && !errors.Is(err, ErrCallerGone) && !errors.Is(err, ErrTooManyTokens) && !errors.Is(err, ErrTooManyWebhooks) {
					done <- err
					return
				}
			}
			done <- nil
		}
		go create(func() error {
			_, _, err := f.admin.CreateToken(t.Context(), Token{Account: id}, Once{}, nil)
			return err
		})
		go create(func() error {
			w := hook(id, "https://old.example/")
			if n%2 == 0 {
				w.By = by
			}
			_, err := f.admin.CreateWebhook(t.Context(), w, Once{}, nil)
			return err
		})
		time.Sleep(time.Duration(n%5) * 2 * time.Millisecond)
		f.commit(t, users.Delete(100+n, "n", "https://example.com/", nil))
		for range 2 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if got := one[int](t, f.world, "SELECT count(*) FROM walhook.token WHERE account = $1", id); got != 0 {
			t.Fatalf("%d tokens are left", got)
		}
		if got := one[int](t, f.world, "SELECT count(*) FROM walhook.endpoint WHERE account = $1 AND ended_at IS NULL", id); got != 0 {
			t.Fatalf("%d endpoints have not ended", got)
		}
		// The next customer has none of it, and may have its own.
		f.commit(t, users.Insert(100+n, "n", "https://example.com/", nil))
		if got := all[string](t, f.world, "SELECT webhook FROM walhook.endpoint WHERE account = $1 AND deleted_at IS NULL", id); len(got) != 1 {
			t.Fatalf("the next customer has %v", got)
		}
		f.create(t, hook(id, "https://new.example/"))
	}
}

// A call that was let in for one account does not act for the next one of its id.
func TestCaller_ATokenThatHasEndedChangesNothing(t *testing.T) {
	f := newFeed(t)
	f.commit(t, memberInsert(7, nil), memberInsert(8, 7))
	token, _, err := f.admin.CreateToken(t.Context(), Token{Account: "7", Subaccounts: true}, Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	own, _, err := f.admin.CreateToken(t.Context(), Token{Account: "8"}, Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	webhook := f.create(t, hook("8", "https://example.com/w"))
	if err := f.admin.Admits(t.Context(), Caller{Token: token.ID, Account: "7"}, "8"); err != nil {
		t.Fatal(err)
	}
	f.commit(t, schemas.Change{Kind: schemas.Delete, Relation: members.Relation, Old: member(8, 7)})
	f.commit(t, memberInsert(8, nil)) // below nobody
	next := one[int64](t, f.world, "SELECT id FROM walhook.endpoint WHERE account = '8' AND webhook = 'account'")
	for name, by := range map[string]Caller{"its own": {Token: own.ID, Account: "8"}, "of the one above": {Token: token.ID, Account: "7"}, "unknown": {Token: "nonsense", Account: "8"}} {
		w := hook("8", "https://old.example/")
		w.By = by
		nothing := func(*Webhook) error { return nil }
		for what, err := range map[string]error{
			"admitted": f.admin.Admits(t.Context(), by, "8"),
			"created":  second(f.admin.CreateWebhook(t.Context(), w, Once{}, nil)),
			"edited":   second(f.admin.EditWebhook(t.Context(), by, "8", outbox.AccountWebhook, nothing)),
			"deleted":  second(f.admin.DeleteWebhook(t.Context(), by, "8", webhook.ID, anyState)),
			"rotated":  second(f.admin.RotateWebhookSecret(t.Context(), by, "8", outbox.AccountWebhook, 0, Once{}, nil)),
			"replayed": second(f.admin.CreateRequest(t.Context(), Request{Endpoint: next, Since: time.Unix(1, 0), Rate: 1, By: by}, Once{}, nil)),
		} {
			if !errors.Is(err, ErrCallerGone) {
				t.Errorf("%s by a token %s: %v", what, name, err)
			}
		}
	}
}

func second[A any](_ A, err error) error { return err }
