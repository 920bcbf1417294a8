package admin

import (
	"errors"
	"strings"
	"testing"
	"time"

	"walhook/outbox"
)

// stateOf names an endpoint's state: who disabled it, why, and who has it disabled once an
// operator's word ends.
func (f *feed) stateOf(t *testing.T, account, webhook string) string {
	t.Helper()
	return one[string](t, f.world, `SELECT concat_ws(' ', state, nullif(disabled_by, ''), nullif(reason, ''), nullif('also ' || also_disabled_by || ' ' || also_disable_reason, 'also  '))
		FROM walhook.endpoint WHERE account = $1 AND webhook = $2`, account, webhook)
}

func (f *feed) wantStateOf(t *testing.T, account, webhook, want string) {
	t.Helper()
	if got := f.stateOf(t, account, webhook); got != want {
		t.Errorf("webhook %s of account %s is %q, want %q", webhook, account, got, want)
	}
}

// edit is an edit by a caller.
func (f *feed) edit(t *testing.T, by Caller, account, webhook string, change func(*Webhook)) error {
	_, err := f.admin.EditWebhook(t.Context(), by, account, webhook, func(w *Webhook) error { change(w); return nil })
	return err
}

// asks is what the API makes of "enabled" in an edit.
func asks(enabled bool) func(*Webhook) {
	return func(w *Webhook) { w.Enabled, w.Ask = enabled, &enabled }
}

// tokenOf is a caller with a token of an account.
func (f *feed) tokenOf(t *testing.T, account string) Caller {
	t.Helper()
	token, _, err := f.admin.CreateToken(t.Context(), Token{Account: account, Subaccounts: true}, Once{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return Caller{Token: token.ID, Account: account}
}

// gone is a receiver's answer 410 to an event, by which walhook disables its endpoint.
func (f *feed) gone(t *testing.T, s *outbox.Session, endpoint int64) {
	t.Helper()
	event := one[int64](t, f.world, "SELECT coalesce(max(id), 0) + 1 FROM walhook.event")
	f.Bodies(t, event, event, endpoint, "dids:1", 8)
	revision := one[int64](t, f.world, "SELECT revision FROM walhook.endpoint WHERE id = $1", endpoint)
	_, err := s.Settle(t.Context(), []outbox.Settlement{{
		Event: outbox.Event{ID: event, Endpoint: endpoint, Revision: revision, Record: "dids:1"}, Disposition: outbox.Retry, RetryAt: time.Now().Add(time.Hour), Disable: "gone",
		Attempt: &outbox.Attempt{At: time.Now(), Number: 1, Revision: revision, Status: 410, Outcome: "disable", Reason: "gone"},
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// A hold lies over what the account or walhook had disabled, however it comes and ends: its
// end enables neither.
func TestRelease_GivesBackWhatWasDisabledBeforeTheHold(t *testing.T) {
	const host, url = "held.example", "https://HELD.example.:8443/x"
	type step func(*testing.T, *feed, Webhook) error // on a webhook of the account for the host, which is active
	holds := map[string]step{
		"a host": func(t *testing.T, f *feed, _ Webhook) error {
			_, err := f.admin.HoldHost(t.Context(), "7", host, "abuse")
			return err
		},
		"the account": func(t *testing.T, f *feed, _ Webhook) error {
			return f.admin.HoldAccount(t.Context(), "7", "abuse")
		},
		"another webhook there": func(t *testing.T, f *feed, w Webhook) error {
			_, err := f.admin.DisableEndpoint(t.Context(), "7", w.ID, "abuse")
			return err
		},
		"another webhook there, by the API": func(t *testing.T, f *feed, w Webhook) error {
			return f.edit(t, Caller{}, "7", w.ID, asks(false))
		},
		"another webhook that moves there": func(t *testing.T, f *feed, w Webhook) error {
			moving := f.create(t, hook("7", "https://before.example/"))
			if _, err := f.admin.DisableEndpoint(t.Context(), "7", moving.ID, "abuse"); err != nil {
				return err
			}
			return f.edit(t, Caller{}, "7", moving.ID, func(w *Webhook) { w.URL = url })
		},
		"the account's own, whose URL moves there": func(t *testing.T, f *feed, w Webhook) error {
			if _, err := f.admin.DisableEndpoint(t.Context(), "7", outbox.AccountWebhook, "abuse"); err != nil {
				return err
			}
			f.commit(t, setURL(urlA, url))
			return nil
		},
		"twice": func(t *testing.T, f *feed, w Webhook) error {
			if _, err := f.admin.HoldHost(t.Context(), "7", host, "abuse"); err != nil {
				return err
			}
			return f.admin.HoldAccount(t.Context(), "7", "abuse")
		},
	}
	releases := map[string]step{
		"all": func(t *testing.T, f *feed, _ Webhook) error {
			r, err := f.admin.ReleaseAccount(t.Context(), "7")
			if r.Stay != 2 {
				t.Errorf("%+v, want 2 that stay disabled", r)
			}
			if line := one[string](t, f.world, "SELECT detail FROM walhook.audit WHERE action = 'account released'"); !strings.HasSuffix(line, "; webhooks that stay disabled: 2") {
				t.Errorf("the audit says %q", line)
			}
			return err
		},
		"the host": func(t *testing.T, f *feed, _ Webhook) error {
			_, err := f.admin.ReleaseHost(t.Context(), "7", host)
			if _, ours := errors.AsType[*outbox.HeldError](f.admin.CheckHeld(t.Context(), Caller{}, "7", url)); err == nil && ours {
				_, err = f.admin.ReleaseAccount(t.Context(), "7") // which was held, too
			}
			if errors.Is(err, ErrNoHold) {
				_, err = f.admin.ReleaseAccount(t.Context(), "7")
			}
			return err
		},
	}
	for held, hold := range holds {
		for released, release := range releases {
			t.Run(held+", ended by "+released, func(t *testing.T) {
				f := newFeed(t)
				f.commit(t, users.Insert(7, "n", urlA, nil))
				active, byAccount, byWalhook := f.create(t, hook("7", url)), f.create(t, hook("7", url)), f.create(t, hook("7", url))
				s, _ := f.join(t)
				if err := f.edit(t, f.tokenOf(t, "7"), "7", byAccount.ID, asks(false)); err != nil {
					t.Fatal(err)
				}
				f.gone(t, s, byWalhook.Endpoint)
				if err := hold(t, f, active); err != nil {
					t.Fatal(err)
				}
				reason := "abuse"
				if strings.Contains(held, "API") {
					reason = reasonOperator
				}
				f.wantStateOf(t, "7", active.ID, "disabled operator "+reason)
				f.wantStateOf(t, "7", byAccount.ID, "disabled operator "+reason+" also account disabled by the account")
				f.wantStateOf(t, "7", byWalhook.ID, "disabled operator "+reason+" also walhook gone")
				if err := release(t, f, active); err != nil {
					t.Fatal(err)
				}
				f.wantStateOf(t, "7", active.ID, "active")
				f.wantStateOf(t, "7", byAccount.ID, "disabled account disabled by the account")
				f.wantStateOf(t, "7", byWalhook.ID, "disabled walhook gone")
				for _, w := range []Webhook{byAccount, byWalhook} { // now it is the account's to enable
					if err := f.edit(t, f.tokenOf(t, "7"), "7", w.ID, asks(true)); err != nil {
						t.Error(err)
					}
					f.wantStateOf(t, "7", w.ID, "active")
				}
			})
		}
	}
}

// Whom an operator names is enabled, whoever has it disabled; the others of its host are
// given back.
func TestEnable_ByNameEnablesThatOneOnly(t *testing.T) {
	f := newFeed(t)
	f.commit(t, users.Insert(7, "n", urlA, nil))
	first, second, third := f.create(t, hook("7", "https://held.example/")), f.create(t, hook("7", "https://held.example/")), f.create(t, hook("7", "https://held.example/"))
	for _, w := range []Webhook{first, second} {
		if err := f.edit(t, f.tokenOf(t, "7"), "7", w.ID, asks(false)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.admin.DisableEndpoint(t.Context(), "7", first.ID, "abuse"); err != nil {
		t.Fatal(err)
	}
	f.wantStateOf(t, "7", first.ID, "disabled operator abuse also account disabled by the account")
	if e, err := f.admin.EnableEndpoint(t.Context(), "7", first.ID); err != nil || e.State != outbox.EndpointActive {
		t.Errorf("%+v, %v", e, err)
	}
	f.wantStateOf(t, "7", first.ID, "active")
	f.wantStateOf(t, "7", second.ID, "disabled account disabled by the account")
	f.wantStateOf(t, "7", third.ID, "active")
}

// What an account does to a webhook while an operator holds it counts once the hold ends.
func TestRelease_KeepsWhatTheAccountDidDuringTheHold(t *testing.T) {
	f := newFeed(t)
	f.commit(t, users.Insert(7, "n", urlA, nil))
	by := f.tokenOf(t, "7")
	s, _ := f.join(t)
	disabled, again, moved, named := f.create(t, hook("7", urlB)), f.create(t, hook("7", urlB)), f.create(t, hook("7", urlB)), f.create(t, hook("7", urlB))
	f.gone(t, s, again.Endpoint)
	f.gone(t, s, moved.Endpoint)
	f.gone(t, s, f.EndpointOf(t, "7"))
	if err := f.admin.HoldAccount(t.Context(), "7", "unpaid"); err != nil {
		t.Fatal(err)
	}
	f.wantStateOf(t, "7", outbox.AccountWebhook, "disabled operator unpaid also walhook gone")
	for what, err := range map[string]error{
		"disabled":                 f.edit(t, by, "7", disabled.ID, asks(false)),
		"disabled after a 410":     f.edit(t, by, "7", again.ID, asks(false)),
		"moved after a 410":        f.edit(t, by, "7", moved.ID, func(w *Webhook) { w.URL = "https://repaired.example/" }),
		"edited without that word": f.edit(t, by, "7", named.ID, func(w *Webhook) { w.Name = "other" }),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	f.commit(t, setURL(urlA, "https://own.example/"))
	f.wantStateOf(t, "7", disabled.ID, "disabled operator unpaid also account disabled by the account")
	for _, w := range []Webhook{disabled, again, moved, named} {
		if err := f.edit(t, by, "7", w.ID, asks(true)); !errors.Is(err, ErrHeldByOperator) {
			t.Errorf("enabled during the hold: %v", err)
		}
	}
	f.takeOver(t)
	r, err := f.admin.ReleaseAccount(t.Context(), "7")
	if err != nil || r.Enabled != 3 || r.Stay != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	f.wantStateOf(t, "7", disabled.ID, "disabled account disabled by the account")
	f.wantStateOf(t, "7", again.ID, "disabled walhook gone")
	f.wantStateOf(t, "7", moved.ID, "active")
	f.wantStateOf(t, "7", named.ID, "active")
	f.wantStateOf(t, "7", outbox.AccountWebhook, "active")
}

// Of an account below, what the token of the one above set: the hold on that lies over what
// the account below disabled.
func TestRelease_OfAnAccountAboveGivesBackWhatTheOneBelowDisabled(t *testing.T) {
	f := newFeed(t)
	f.commit(t, memberInsert(7, nil), memberInsert(8, 7))
	above, below := f.tokenOf(t, "7"), f.tokenOf(t, "8")
	w := hook("8", "https://held.example/")
	w.By = above
	set := f.create(t, w)
	if err := f.edit(t, below, "8", set.ID, asks(false)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.admin.HoldHost(t.Context(), "7", "held.example", "abuse"); err != nil {
		t.Fatal(err)
	}
	f.wantStateOf(t, "8", set.ID, "disabled operator abuse also account disabled by the account")
	for _, by := range []Caller{above, below} {
		if err := f.edit(t, by, "8", set.ID, asks(true)); !errors.Is(err, ErrHeldByOperator) {
			t.Errorf("enabled during the hold: %v", err)
		}
	}
	// The hold of the one below ends, that of the one above does not.
	if _, err := f.admin.HoldHost(t.Context(), "8", "held.example", "abuse"); err != nil {
		t.Fatal(err)
	}
	if r, err := f.admin.ReleaseAccount(t.Context(), "8"); err != nil || r.Stay != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	f.wantStateOf(t, "8", set.ID, "disabled operator abuse also account disabled by the account")
	if r, err := f.admin.ReleaseHost(t.Context(), "7", "held.example"); err != nil || r.Stay != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	f.wantStateOf(t, "8", set.ID, "disabled account disabled by the account")
}
