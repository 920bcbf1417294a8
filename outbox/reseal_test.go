package outbox

import (
	"bytes"
	"slices"
	"testing"
)

// Whoever can write into the outbox cannot have one account's deliveries signed
// with another's secret, nor with one of his own.
func TestReseal_ASecretOfAnotherRowOrInPlainIsRefused(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7), account(8))
	first, second := f.secretsOf(t, "7"), f.secretsOf(t, "8")
	f.open(t, withKey(1))
	resealed := func(old []byte, want Resealed) {
		t.Helper()
		got, err := f.store.Reseal(t.Context(), old)
		if err != nil || got.Sealed != want.Sealed || got.Already != want.Already || !slices.Equal(got.Unreadable, want.Unreadable) {
			t.Errorf("resealed %+v, %v; want %+v", got, err, want)
		}
	}
	same := func(when string) {
		t.Helper()
		if !slices.Equal(f.secretsOf(t, "7"), first) || !slices.Equal(f.secretsOf(t, "8"), second) {
			t.Errorf("%s the secrets are others", when)
		}
	}
	refused := func(how string) {
		t.Helper()
		if got, err := f.store.EndpointSecrets(t.Context(), "7"); err == nil || len(got) > 0 {
			t.Errorf("%s: %d secrets, %v", how, len(got), err)
		}
	}
	resealed(nil, Resealed{Sealed: 2})
	same("under a first key")
	resealed(nil, Resealed{Already: 2})
	stored := one[string](t, f.world, "SELECT secret FROM walhook.endpoint WHERE account = '7'")
	f.exec(t, "UPDATE walhook.endpoint e SET secret = o.secret FROM walhook.endpoint o WHERE o.account <> e.account")
	refused("two rows exchanged")
	f.exec(t, "UPDATE walhook.endpoint SET secret = 'whsec_b3du' WHERE account = '7'")
	refused("a plain one")
	f.exec(t, "UPDATE walhook.endpoint e SET secret = o.secret FROM walhook.endpoint o WHERE o.account <> e.account AND e.account = '8'")
	f.exec(t, "UPDATE walhook.endpoint SET secret = $1 WHERE account = '7'", stored)
	resealed(nil, Resealed{Already: 1, Unreadable: []string{"8/account"}})
	f.exec(t, "DELETE FROM walhook.endpoint WHERE account = '8'")

	f.open(t, withKey(2))
	refused("the old key's")
	resealed(bytes.Repeat([]byte{1}, 32), Resealed{Sealed: 1})
	if !slices.Equal(f.secretsOf(t, "7"), first) {
		t.Error("under a second key the secret is another")
	}
}
