package admin

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// A session of the portal whose link an account's token made is held with that account, as
// the token is, and so is what it set.
func TestHold_OfAnAccountCoversTheSessionsOfItsTokens(t *testing.T) {
	f := newFeed(t)
	f.commit(t, memberInsert(7, nil), memberInsert(8, 7))
	f.Exec(t, "UPDATE walhook.endpoint SET url = NULL, state = 'cleared', reason = 'x'")
	token, _, err := f.admin.CreateToken(t.Context(), Token{Account: "7", Subaccounts: true}, Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	enter := func(by Caller) Caller {
		link, err := f.admin.CreatePortalLink(t.Context(), by, "8", Once{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, cookie, err := f.admin.UsePortalLink(t.Context(), link.Secret)
		if err != nil {
			t.Fatal(err)
		}
		s, err := f.admin.FindPortalSession(t.Context(), cookie, "")
		if err != nil {
			t.Fatal(err)
		}
		return Caller{Session: s.ID, Account: s.Account, Maker: s.Maker}
	}
	parents, operators := enter(Caller{Token: token.ID, Account: "7"}), enter(Caller{})
	by := func(c Caller, url string) Webhook {
		w := hook("8", url)
		w.By = c
		return w
	}
	f.create(t, by(parents, "https://a.example/parents"))
	f.create(t, by(operators, "https://a.example/operators"))
	if err := f.admin.HoldAccount(t.Context(), "7", "abuse"); err != nil {
		t.Fatal(err)
	}
	f.wantActive(t, "8 https://a.example/operators")
	f.wantHeld(t, by(enter(Caller{Token: token.ID, Account: "7"}), "https://b.example/"))
	f.create(t, by(operators, "https://b.example/operators"))
	if _, err := f.admin.ReleaseAccount(t.Context(), "7"); err != nil {
		t.Fatal(err)
	}
	f.wantActive(t, "8 https://a.example/operators", "8 https://a.example/parents", "8 https://b.example/operators")
}

// A webhook that another account's token set is held with that account, and no longer, also
// when its own account gives it another URL meanwhile; what its own account set is not held.
func TestHold_OfAnotherAccountEndsAlsoForWhatWasMoved(t *testing.T) {
	for name, host := range map[string]string{"the account": "", "the host": "a.example"} {
		for _, to := range []string{"https://a.example/moved", "https://b.example/moved"} {
			t.Run(name+", to "+to, func(t *testing.T) {
				f := newFeed(t)
				f.commit(t, memberInsert(7, nil), memberInsert(8, 7))
				f.Exec(t, "UPDATE walhook.endpoint SET url = NULL, state = 'cleared', reason = 'x'")
				token, _, err := f.admin.CreateToken(t.Context(), Token{Account: "7", Subaccounts: true}, Once{}, nil)
				if err != nil {
					t.Fatal(err)
				}
				own, _, err := f.admin.CreateToken(t.Context(), Token{Account: "8"}, Once{}, nil)
				if err != nil {
					t.Fatal(err)
				}
				w := hook("8", "https://a.example/set")
				w.By = Caller{Token: token.ID, Account: "7"}
				set := f.create(t, w)
				f.create(t, hook("8", "https://b.example/own"))
				if _, err := f.admin.Hold(t.Context(), "7", host, "abuse"); err != nil {
					t.Fatal(err)
				}
				if _, err := f.admin.EditWebhook(t.Context(), Caller{Token: own.ID, Account: "8"}, "8", set.ID, func(w *Webhook) error { w.URL = to; return nil }); err != nil {
					t.Fatal(err)
				}
				f.wantActive(t, "8 https://b.example/own")
				if holds := holdsOf(t, f, "8"); len(holds) > 0 {
					t.Errorf("the account below is held: %q", holds)
				}
				for _, held := range holdsOf(t, f, "7") {
					if held == "" {
						_, err = f.admin.ReleaseAccount(t.Context(), "7")
					} else {
						_, err = f.admin.ReleaseHost(t.Context(), "7", held)
					}
					if err != nil && !errors.Is(err, ErrNoHold) {
						t.Fatal(err)
					}
				}
				active := []string{"8 https://b.example/own", "8 " + to}
				slices.Sort(active)
				f.wantActive(t, active...)
				if n := one[int](t, f.world, "SELECT count(*) FROM walhook.hold"); n > 0 {
					t.Errorf("%d holds are left", n)
				}
			})
		}
	}
}

// Who enables one webhook does not end the hold of its host, which holds others, too.
func TestHold_OfAHostStaysWhenOneWebhookIsEnabled(t *testing.T) {
	f := newFeed(t)
	f.commit(t, memberInsert(7, nil))
	f.Exec(t, "UPDATE walhook.endpoint SET url = NULL, state = 'cleared', reason = 'x'")
	one, other := f.create(t, hook("7", "https://a.example/one")), f.create(t, hook("7", "https://a.example/other"))
	if _, err := f.admin.Hold(t.Context(), "7", "a.example", "abuse"); err != nil {
		t.Fatal(err)
	}
	enable := func() {
		t.Helper()
		_, err := f.admin.EnableEndpoint(t.Context(), "7", one.ID)
		if _, refused := errors.AsType[*StateError](err); !refused || !strings.Contains(err.Error(), "'walhook endpoints enable 7 --host a.example'") {
			t.Errorf("enabled: %v", err)
		}
		f.wantActive(t)
	}
	enable()
	for _, id := range []string{other.ID, one.ID} {
		if _, err := f.admin.DisableEndpoint(t.Context(), "7", id, "another reason"); err != nil {
			t.Fatal(err)
		}
	}
	enable()
	holds, err := f.admin.Holds(t.Context(), "7", Hold{}, 10)
	if err != nil || len(holds) != 1 || holds[0].Reason != "abuse" {
		t.Errorf("holds %+v, %v", holds, err)
	}
	if _, err := f.admin.ReleaseHost(t.Context(), "7", "a.example"); err != nil {
		t.Fatal(err)
	}
	f.wantActive(t, "7 https://a.example/one", "7 https://a.example/other")
}

// What is held still shows why it is, not why it was.
func TestHold_ShowsTheReasonOfTheHoldThatIsLeft(t *testing.T) {
	f := newFeed(t)
	f.commit(t, memberInsert(7, nil))
	f.Exec(t, "UPDATE walhook.endpoint SET url = NULL, state = 'cleared', reason = 'x'")
	w := f.create(t, hook("7", "https://a.example/"))
	if _, err := f.admin.Hold(t.Context(), "7", "a.example", "abuse"); err != nil {
		t.Fatal(err)
	}
	if err := f.admin.HoldAccount(t.Context(), "7", "unpaid"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.admin.ReleaseHost(t.Context(), "7", "a.example"); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all[string](t, f.world, "SELECT state || ' by ' || disabled_by || ': ' || reason || ', ' || disabled_reason FROM walhook.endpoint WHERE webhook = $1", w.ID),
		"disabled by operator: unpaid, unpaid")
}
