package admin

import (
	"testing"

	"walhook/schemas"
)

// Which accounts the source has is told as the snapshot and the stream said it, and
// not at all where that cannot be.
func TestKnownAccounts_FollowTheSource(t *testing.T) {
	f := newFeed(t)
	is := func(account string, want bool) {
		t.Helper()
		if unknown, err := f.admin.IsUnknown(t.Context(), account); err != nil || unknown != want {
			t.Errorf("account %s is unknown: %v, %v; want %v", account, unknown, err, want)
		}
	}
	f.commit(t, account(7))
	f.Exec(t, "UPDATE walhook.source SET accounts_known = false")
	is("9", false) // no snapshot has said which there are
	f.snapshot(t, 0x9000, load(t, map[string]string{"8": "https://example.com/8", "10": ""}))
	f.takeOver(t)
	f.commitLSN = 0x9000
	is("7", true)
	is("8", false)
	is("10", false)
	f.commit(t, users.Insert(9, "n", "", nil), account(11))
	is("9", false)
	is("11", false)
	f.commit(t, users.Update(row(9, "n", "", nil), row(12, "n", "", nil)))
	is("9", true)
	is("12", false)
	f.commit(t, users.Delete(12, "n", "", nil), users.Insert(13, "n", "", nil))
	is("12", true)
	is("13", false)
	f.commit(t, users.Insert(14, "n", "", nil), users.Truncate(), users.Insert(15, "n", "", nil))
	is("13", true)
	is("14", true)
	is("15", false)
	f.Exec(t, "UPDATE walhook.source SET state = 'snapshot'")
	is("13", false)
	f.Exec(t, "UPDATE walhook.source SET state = 'ready'")
	c := users.Insert(16, "n", "", nil)
	c.New[0] = schemas.Value{}
	f.commit(t, c)
	is("13", false) // it may be the one without an id
}
