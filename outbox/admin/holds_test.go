package admin

import (
	"testing"

	"walhook/outbox"
)

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
