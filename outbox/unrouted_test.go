package outbox

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"walhook/doctor"
	"walhook/outbox/route"
	"walhook/schemas"
)

// One statement of a role without rights made 100,000 rows of walhook.unrouted:
// what is refused is listed within a bound, the rest is summed up, and the
// counters stay exact.
func TestUnrouted_AFloodIsListedInPartAndSummedUp(t *testing.T) {
	f := newFeed(t)
	const refusals, batches = 20_000, 8
	for range batches {
		changes := make([]schemas.Change, refusals/batches)
		for i := range changes {
			changes[i] = message("no JSON")
		}
		f.commit(t, changes...)
	}
	f.commit(t, results.Insert(1, 7, "dids", "update", "x", nil)) // of another kind
	f.wantSkipped(t, map[string]int{route.SkipMessage: refusals, route.SkipReserved: 1})
	if n := f.count(t, "unrouted WHERE reason = 'malformed_message'"); n == 0 || n > 3*listedRows {
		t.Errorf("%d refusals are %d rows", refusals, n)
	}
	if n := f.count(t, "unrouted WHERE reason = 'reserved_name'"); n != 1 {
		t.Errorf("another refusal is %d rows", n)
	}
	f.publisher.listing.began = f.publisher.listing.began.Add(-listWindow)
	if err := f.publisher.sumUnrouted(t.Context()); err != nil {
		t.Fatal(err)
	}
	var listedInAll, more int
	for _, key := range all[string](t, f.world, "SELECT key FROM walhook.unrouted WHERE reason = 'malformed_message'") {
		if n := 0; strings.HasPrefix(key, "and ") {
			_, _ = fmt.Sscanf(key, "and %d more", &n)
			more += n
		} else {
			listedInAll++
		}
	}
	if listedInAll+more != refusals {
		t.Errorf("%d are listed and %d summed up, of %d", listedInAll, more, refusals)
	}
}

func TestUnrouted_TheKindsThatAreListedAreBoundedToo(t *testing.T) {
	t.Parallel()
	var l listing
	now := time.Unix(0, 0)
	var rows []route.Unrouted
	for i := range 10 * listedKinds {
		rows = append(rows, route.Unrouted{Schema: fmt.Sprint("s", i), Reason: route.SkipMessage})
	}
	l, kept := l.bound(rows, now)
	if len(kept) != listedKinds {
		t.Errorf("%d rows are listed", len(kept))
	}
	l, over := l.bound(nil, now.Add(listWindow))
	if len(over) != 1 || over[0].Schema != "" || !strings.HasPrefix(over[0].Key, fmt.Sprintf("and %d more", 9*listedKinds)) {
		t.Errorf("summed up: %+v", over)
	}
	if _, again := l.bound([]route.Unrouted{{Schema: "s", Reason: route.SkipMessage}}, now.Add(listWindow)); len(again) != 1 {
		t.Errorf("the next window lists %d", len(again))
	}
}

// What doctor says of changes that reached nobody has a noun for its number,
// also where nothing is known but that something was malformed.
func TestDoctor_CountsUnroutedChangesInWords(t *testing.T) {
	f := newFeed(t)
	f.exec(t, `INSERT INTO walhook.unrouted (commit_lsn, ordinal, schema, type, key, reason)
		SELECT '0/1', n, schema, 'insert', '', reason FROM (VALUES ('', 'malformed_message', 1), ('', 'non_transactional_message', 2), ('dids', 'owner_unknown', 1), ('faxes', 'no_key', 2)) w (schema, reason, times),
			generate_series(1, times) n`)
	var said strings.Builder
	for _, finding := range Examine(t.Context(), Config{URL: f.db.URL}, doctor.Options{}) {
		if finding.ID == checkUnrouted {
			said.WriteString(finding.Evidence + "\n")
		}
	}
	for _, want := range []string{
		"1 message or row without a known schema reached nobody", "2 messages or rows without a known schema reached nobody",
		"1 change of dids reached nobody", "2 changes of faxes reached nobody",
	} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("doctor does not say %q:\n%s", want, said.String())
		}
	}
}
