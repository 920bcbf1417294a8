package outbox

import (
	"fmt"
	"strings"
	"testing"
	"time"

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
	f.commit(t, results.insert(1, 7, "dids", "update", "x", nil)) // of another kind
	f.wantSkipped(t, map[string]int{skipMessage: refusals, skipReserved: 1})
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
	var rows []unroutedRow
	for i := range 10 * listedKinds {
		rows = append(rows, unroutedRow{schema: fmt.Sprint("s", i), reason: skipMessage})
	}
	if kept := l.bound(rows, now); len(kept) != listedKinds {
		t.Errorf("%d rows are listed", len(kept))
	}
	over := l.bound(nil, now.Add(listWindow))
	if len(over) != 1 || over[0].schema != "" || !strings.HasPrefix(over[0].key, fmt.Sprintf("and %d more", 9*listedKinds)) {
		t.Errorf("summed up: %+v", over)
	}
	if again := l.bound([]unroutedRow{{schema: "s", reason: skipMessage}}, now.Add(listWindow)); len(again) != 1 {
		t.Errorf("the next window lists %d", len(again))
	}
}
