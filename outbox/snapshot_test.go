package outbox

import (
	"errors"
	"fmt"
	"testing"

	"walhook/outbox/route"
	"walhook/outbox/route/routetest"
	"walhook/outbox/storetest"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// load is a snapshot of accounts by URL, and owners.
func load(t *testing.T, accounts map[string]string, owners ...schemas.OwnerEdge) func(catalog.SnapshotSink) error {
	return storetest.Load(t, accounts, owners...)
}

// endpoints lists account, state, revision, URL, whether its feed is ended.
func (f *feed) endpoints(t *testing.T) []string {
	t.Helper()
	return all[string](t, f.world, `SELECT format('%s %s%s %s %s%s', account, state, '/' || nullif(disabled_by, ''), revision, coalesce(url, '-'),
		CASE WHEN ended_at IS NOT NULL THEN ' ended' END) FROM walhook.endpoint ORDER BY account, id`)
}

func TestSnapshot_IsTheFirstPosition(t *testing.T) {
	w := newWorld(t)
	f := &feed{world: w, publisher: newPublisher(t, w)}
	if got := f.takeOver(t); got != (schemas.Checkpoint{}) {
		t.Errorf("checkpoint before the first snapshot is %+v", got)
	}
	f.snapshot(t, 0x5000, load(t, map[string]string{"7": urlA, "8": "", "9": "ftp://x/"},
		schemas.OwnerEdge{Schema: "dids", Key: "1", Account: "7"}, schemas.OwnerEdge{Schema: "dids", Key: "2"}))
	want := schemas.Checkpoint{Source: testSource, Position: schemas.Position{Commit: 0x5000}, Flush: 0x5000}
	if got := f.takeOver(t); got != want {
		t.Errorf("checkpoint is %+v, want %+v", got, want)
	}
	wantLines(t, f.endpoints(t), "7 active 1 "+urlA, "9 unusable 1 ftp://x/")

	// What it says of owners is known from then on.
	f.commitLSN = 0x5000
	f.commit(t, faxes.Insert(1, 1, "1"), faxes.Insert(2, 2, "1"), faxes.Delete(9, 1, "1"))
	wantLines(t, f.events(t), `7 _1 faxes:1 insert faxes {'id':1,'did_id':1,'pages':'1'}`, `7 _3 faxes:9 delete faxes {'id':9,'did_id':1,'pages':'1'}`)
	f.wantSkipped(t, map[string]int{route.SkipNoOwner: 1})
}

func TestSnapshot_ThatIsInterruptedLeavesNothing(t *testing.T) {
	f := newFeed(t)
	f.commit(t, users.Insert(7, "n", urlA, nil), dids.Insert(1, 7, "1"))
	before, owners := f.endpoints(t), f.count(t, "owner")
	if err := f.publisher.BeginSnapshot(t.Context(), testSource); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("connection lost")
	err := f.publisher.LoadSnapshot(t.Context(), 0x9000, func(w catalog.SnapshotSink) error {
		accounts := map[string]string{}
		for n := range snapshotChunk + 1 { // some of it is sent already
			accounts[fmt.Sprint(n)] = urlB
		}
		if err := load(t, accounts, schemas.OwnerEdge{Schema: "dids", Key: "2", Account: "7"})(w); err != nil {
			return err
		}
		return lost
	})
	if !errors.Is(err, lost) {
		t.Fatal(err)
	}
	wantLines(t, f.endpoints(t), before...)
	if n := f.count(t, "owner"); n != owners {
		t.Errorf("%d owners, want %d", n, owners)
	}
	for slot, want := range map[string]bool{testSource.Slot: true, "another": false} {
		if begun, err := f.publisher.SnapshotBegun(t.Context(), slot); err != nil || begun != want {
			t.Errorf("slot %s: begun is %t, %v", slot, begun, err)
		}
	}
	if got := f.takeOver(t); got != (schemas.Checkpoint{}) {
		t.Errorf("there is a checkpoint in the middle of a snapshot: %+v", got)
	}

	// The next one, by another process.
	f.restart(t)
	f.snapshot(t, 0x9000, load(t, map[string]string{"7": urlA}))
	if begun, err := f.publisher.SnapshotBegun(t.Context(), testSource.Slot); err != nil || begun {
		t.Errorf("begun is %t, %v", begun, err)
	}
	// The log goes on where it was.
	f.restart(t)
	f.commit(t, dids.Insert(3, 7, "3"))
	wantLines(t, all[string](t, f.world, "SELECT id || ' ' || record FROM walhook.event ORDER BY id"), "1 users:7", "2 dids:1", "3 dids:3")
}

func TestSnapshot_ReplacesWhatWasKnown(t *testing.T) {
	f := newFeed(t)
	for n, url := range []any{urlA, urlA, urlA, urlA, nil, urlA, urlA} {
		f.commit(t, users.Insert(n, "n", url, nil), dids.Insert(n, n, "1"))
	}
	f.commit(t, setAccountURL(5, urlA, nil))
	f.commit(t, users.Delete(6, "n", urlA, nil))
	newest := f.publisher.view.NextID
	f.snapshot(t, 0x9000, load(t, map[string]string{"0": urlA, "1": urlB, "2": "", "4": urlA, "5": urlB, "6": urlA},
		schemas.OwnerEdge{Schema: "dids", Key: "1", Account: "4"}))
	wantLines(t, f.endpoints(t),
		"0 active 1 "+urlA,          // as it was
		"1 active 2 "+urlB,          // changed
		"2 cleared 2 -",             // cleared
		"3 active 2 "+urlA+" ended", // gone
		"4 active 1 "+urlA,          // new
		"5 active 3 "+urlB,          // set again
		"6 active 3 "+urlA+" ended", // gone
		"6 active 1 "+urlA)          // another of its id
	wantLines(t, all[string](t, f.world, "SELECT format('%s:%s %s', schema, key, account) FROM walhook.owner"), "dids:1 4")
	wantLines(t, all[string](t, f.world, "SELECT format('%s from %s', account, feed_from) FROM walhook.endpoint WHERE feed_from > 0 ORDER BY account"),
		fmt.Sprintf("2 from %d", newest), fmt.Sprintf("5 from %d", one[int64](t, f.world, "SELECT feed_from FROM walhook.endpoint WHERE account = '5'")))

	f.takeOver(t)
	f.forget(t)
	f.commit(t, dids.Insert(20, 3, "x"), dids.Insert(21, 2, "x"), faxes.Insert(22, 1, "x"))
	wantLines(t, f.events(t), `4 _3 faxes:22 insert faxes {'id':22,'did_id':1,'pages':'x'}`)
}

var setAccountURL = routetest.SetURL

func TestSnapshot_KeepsWhatAnOperatorDisabled(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(1), account(2), account(3))
	f.exec(t, "UPDATE walhook.endpoint SET state = 'disabled', disabled_by = 'operator', reason = 'on request', disabled_reason = 'on request'")
	f.exec(t, "UPDATE walhook.endpoint SET disabled_by = 'walhook', disabled_reason = '' WHERE account = '3'")
	f.snapshot(t, 0x9000, load(t, map[string]string{"1": "https://example.com/1", "2": urlB, "3": urlB}))
	wantLines(t, f.endpoints(t), "1 disabled/operator 1 https://example.com/1", "2 disabled/operator 2 "+urlB, "3 active 2 "+urlB)
	wantLines(t, all[string](t, f.world, "SELECT reason FROM walhook.endpoint ORDER BY account"), "on request", "on request", "")
}

func TestSnapshot_TakesTheAccountsOwnSecrets(t *testing.T) {
	f := newFeed(t)
	f.commit(t, users.Insert(7, "n", urlA, "whsec_b2xk"), users.Insert(8, "n", urlA, nil))
	made := one[string](t, f.world, "SELECT secret FROM walhook.endpoint WHERE account = '8'")
	f.snapshot(t, 0x9000, func(w catalog.SnapshotSink) error {
		for _, a := range []schemas.Account{{ID: "7", URL: urlA, Secret: "whsec_bmV3"}, {ID: "8", URL: urlB}, {ID: "9", URL: urlA, Secret: "whsec_OQ=="}} {
			if err := w.Account(t.Context(), a); err != nil {
				return err
			}
		}
		return nil
	})
	wantLines(t, all[string](t, f.world, "SELECT account || ' ' || secret FROM walhook.endpoint ORDER BY account"),
		"7 whsec_bmV3", "8 "+made, "9 whsec_OQ==")
	if revision := one[int](t, f.world, "SELECT revision FROM walhook.endpoint WHERE account = '7'"); revision != 2 {
		t.Errorf("a changed secret has revision %d: no sender reads it", revision)
	}
}

func TestSnapshot_OfAnotherSetupIsNotFinished(t *testing.T) {
	f := newFeed(t)
	if err := f.publisher.LoadSnapshot(t.Context(), 0x9000, load(t, nil)); err == nil {
		t.Error("stored a snapshot that was not begun")
	}
}

func TestSnapshot_OfBytesThatAreNoText(t *testing.T) {
	f := newFeed(t)
	key := schemas.KeyOf([][]byte{{0xff}})
	f.snapshot(t, 0x9000, load(t, map[string]string{"\xff": urlA, "7": urlB, "8": "https://\xff/"},
		schemas.OwnerEdge{Schema: "notes", Key: key, Account: "7"}, schemas.OwnerEdge{Schema: "notes", Key: "1", Account: "\xff"}))
	f.takeOver(t)
	f.commit(t, notes.Delete("1", notSent, notSent))
	wantLines(t, all[string](t, f.world, "SELECT p.account FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint"), "\uFFFD")
}
