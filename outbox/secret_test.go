package outbox

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"walhook/outbox/seal"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

func withKey(fill byte) func(*Config) {
	return func(c *Config) { c.SecretKey = bytes.Repeat([]byte{fill}, 32) }
}

func TestSecrets_AreSealedUnderAKey(t *testing.T) {
	f := newFeed(t, withKey(1))
	f.snapshot(t, firstLSN, func(w catalog.SnapshotSink) error {
		return w.Account(t.Context(), schemas.Account{ID: "9", URL: urlA, Secret: "whsec_OQ=="})
	})
	f.takeOver(t)
	f.commit(t, users.Insert(7, "n", urlA, "whsec_b3du"), users.Insert(8, "n", urlA, nil))
	f.commit(t, users.Update(row(9, "n", urlA, "whsec_OQ=="), row(9, "n", urlA, "whsec_bmV3")))
	for _, stored := range all[string](t, f.world, "SELECT secret FROM walhook.endpoint") {
		if !seal.IsBound(stored) || strings.Contains(stored, "whsec_") {
			t.Errorf("stored as %q", stored)
		}
	}
	s, _ := f.join(t)
	secrets := func() (list []string) {
		endpoints, err := s.Endpoints(t.Context(), all[int64](t, f.world, "SELECT id FROM walhook.endpoint ORDER BY account"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range endpoints {
			list = append(list, e.Account+" "+strings.Join(e.Secrets, " "))
		}
		slices.Sort(list)
		return list
	}
	got := secrets()
	if len(got) != 3 || got[0] != "7 whsec_b3du" || got[2] != "9 whsec_bmV3 whsec_OQ==" || !strings.HasPrefix(got[1], "8 whsec_") {
		t.Errorf("secrets are %v", got)
	}

	// A restart under the same key changes nothing, also when a row comes again.
	f.restart(t)
	f.commit(t, users.Update(row(7, "n", urlA, "whsec_b3du"), row(7, "m", urlA, "whsec_b3du")))
	if revision := one[int](t, f.world, "SELECT revision FROM walhook.endpoint WHERE account = '7'"); revision != 1 {
		t.Errorf("revision %d", revision)
	}
	f.exec(t, "UPDATE walhook.endpoint SET previous_secret = secret, previous_until = now() + interval '1h' WHERE account = '7'")
	if got := secrets(); got[0] != "7 whsec_b3du" {
		t.Errorf("the same secret twice is %s", got[0])
	}
}

func TestSecrets_StoredPlainAreReadUnderAKey(t *testing.T) {
	f := newFeed(t)
	f.commit(t, users.Insert(7, "n", urlA, "whsec_b3du"))
	if stored := one[string](t, f.world, "SELECT secret FROM walhook.endpoint"); stored != "whsec_b3du" {
		t.Errorf("without a key it is stored as %q", stored)
	}
	f.open(t, withKey(1))
	s, _ := f.join(t)
	endpoints, err := s.Endpoints(t.Context(), []int64{1})
	if err != nil || endpoints[0].Secrets[0] != "whsec_b3du" {
		t.Errorf("read %v, %v", endpoints, err)
	}
}
