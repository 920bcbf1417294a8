package outbox

import "testing"

// The publisher takes an inserted record for new without asking. One that used
// the key before may be stored, and then is what is not new.
func TestOwners_AKeyThatIsUsedAgain(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7), account(8))
	for id := range 3 {
		f.commit(t, dids.Insert(id, 7, "1"))
		f.commit(t, dids.Delete(id, 7, "1"))
	}
	f.restart(t) // knows none of them
	f.forget(t)
	f.commit(t, dids.Insert(0, 8, "2"), dids.Insert(10, 8, "3"))
	f.commit(t, dids.Insert(1, 8, "4"), dids.Delete(1, 8, "4"), dids.Insert(1, 7, "5"))
	f.commit(t, dids.Insert(11, 7, "6"))
	wantLines(t, all[string](t, f.world, `SELECT format('%s %s %s', key, account, deleted_at IS NOT NULL) FROM walhook.owner WHERE schema = 'dids' ORDER BY key::int`),
		"0 8 f", "1 7 f", "2 7 t", "10 8 f", "11 7 f")
	if got := len(f.events(t)); got != 6 {
		t.Errorf("%d events, want one for each change", got)
	}
	if f.publisher.keysReused == 0 {
		t.Error("the publisher goes on taking records for new")
	}
}
