package route

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// everything is a batch that changes each thing that a view knows.
func everything(f *feed) []schemas.Change {
	var changes []schemas.Change
	for _, tx := range [][]schemas.Change{
		f.tx(dids.Insert(1, 7, "312"), faxes.Insert(5, 1, "2"), pages.Insert(9, 5), notes.Insert(3, 7, "x")),
		f.tx(users.Update(row(7, "n", "https://example.com/7", nil), row(7, "n", "https://b.example.com/", "whsec_b3du"))),
		f.tx(dids.Update(row(1, 7, "312"), row(1, 8, "313")), dids.Update(row(2, 8, "1"), row(4, 8, "1"))),
		f.tx(dids.Truncate(), faxes.Insert(6, 1, "2"), dids.Insert(2, 8, "4")),
		f.tx(users.Update(row(8, "n", "https://example.com/8", nil), row(8, "n", "", nil)), dids.Insert(3, 8, "5")),
		f.tx(users.Update(row(8, "n", "", nil), row(8, "n", "https://example.com/8", nil)), notes.Update(nil, row(3, notSent, "y"))),
		f.tx(dids.Insert(4, 9, "6"), users.Delete(9, "n", "https://example.com/9", nil), dids.Delete(4, 9, "6")),
		f.tx(users.Insert(9, "again", "https://again.example.com/", nil), dids.Insert(5, 9, "7"), message("no JSON"), notes.Delete(99, notSent, notSent)),
		f.tx(ghosts.Insert(1), dids.Insert(6, 10, "8"), dids.Insert(7, 10, "\xff\xfe"), users.Insert(11, "n", "https://example.com/11", nil)),
	} {
		changes = append(changes, tx...)
	}
	for i := range changes {
		changes[i].CommittedAt = noon.Add(time.Duration(i) * 5 * time.Hour) // over days
	}
	return changes
}

var noon = time.Date(2024, 6, 10, 12, 0, 0, 0, time.UTC)

// newEverything is a feed with accounts, a daily webhook and one that waits for all.
func newEverything(tb testing.TB) *feed {
	f := newFeed(tb)
	f.commit(account(7), account(8), account(9), dids.Insert(2, 8, "1"), notes.Insert(1, 7, "a"))
	f.view.SetWebhooks(3, map[string][]*Endpoint{
		"8": {{Account: "8", ID: 101, Revision: 1, Subscription: &Subscription{Hook: HookRecords, Daily: true}, Day: NewOpenDay(UTC(), UTC().Ended(noon), noon)}},
		"9": {{Account: "9", ID: 102, Revision: 1, Subscription: &Subscription{Hook: HookAll}}},
	})
	f.forget()
	return f
}

// shown is all that a plan and a view say, as text. Pointers are followed.
func shown(what any) string {
	seen := map[uintptr]bool{}
	return fmt.Sprint(flatten(reflect.ValueOf(what), seen))
}

// flatten makes a value printable as what it holds: maps in order, pointers as
// what they point to.
func flatten(v reflect.Value, seen map[uintptr]bool) any {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		switch v.Type() {
		case reflect.TypeFor[*catalog.Catalog](), reflect.TypeFor[*catalog.Plan](), reflect.TypeFor[*schemas.Relation](), reflect.TypeFor[*catalog.Schema](), reflect.TypeFor[*time.Location]():
			return "…"
		}
		return flatten(v.Elem(), seen)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return fmt.Sprint(v.Field(0), v.Field(1))
		}
		fields := make([]any, v.NumField())
		for i := range fields {
			fields[i] = v.Type().Field(i).Name + ":"
			if name := v.Type().Field(i).Name; name != "bodies" && name != "scratch" && name != "Notes" && name != "StoredURL" && name != "tables" {
				fields[i] = fmt.Sprint(name, ":", flatten(v.Field(i), seen))
			}
		}
		return fields
	case reflect.Map:
		flat := map[string]any{}
		for _, k := range v.MapKeys() {
			flat[fmt.Sprint(flatten(k, seen))] = flatten(v.MapIndex(k), seen)
		}
		return flat
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return fmt.Sprintf("%s", v)
		}
		items := make([]any, v.Len())
		for i := range items {
			items[i] = flatten(v.Index(i), seen)
		}
		return items
	}
	return fmt.Sprint(v)
}

// A plan that could not be committed leaves nothing behind: the view is as it was,
// and the same batch makes the same plan, to the byte.
func TestPlan_OneThatIsNotCommittedLeavesTheViewAsItWas(t *testing.T) {
	f := newEverything(t)
	changes := everything(f)
	f.fetch(changes)
	before := shown(f.view)
	first := routeEverything(f, changes)
	want := shown(first)
	for _, w := range first.Endpoints { // as the transaction that fails at its end
		w.Endpoint.ID, w.Endpoint.Revision = 999, 999
	}
	if after := shown(f.view); after != before {
		t.Fatalf("the view is\n%s\nand was\n%s", after, before)
	}
	again := routeEverything(f, changes)
	if got := shown(again); got != want {
		t.Errorf("the same batch again is\n%s\nand was\n%s", got, want)
	}
	if len(again.Events) < 10 || len(again.Endpoints) < 4 || len(again.DayEnds) == 0 || len(again.Sums) == 0 || len(again.Unrouted) == 0 || len(again.Owners) == 0 {
		t.Errorf("the batch does not change everything: %s", shown(again))
	}
	// Committed, it changes the view, and what follows is routed by that.
	f.store(again)
	if shown(f.view) == before {
		t.Error("a plan that is committed changes nothing")
	}
	f.forget()
	f.commit(dids.Update(row(2, 8, "4"), row(2, 8, "9")), dids.Insert(9, 9, "9"))
	wantLines(t, f.events(),
		`8 _1 dids:2 update dids {'id':2,'user_id':8,'number':'9'}`,
		`9 _2 dids:9 insert dids {'id':9,'user_id':9,'number':'9'}`)
}

func routeEverything(f *feed, changes []schemas.Change) *Plan {
	f.fetch(changes)
	return Route(f.view, changes, Part{End: len(changes), Now: noon.AddDate(1, 0, 0)}, nil, nil)
}

// However a batch is divided into the parts of one transaction, the parts say what
// the whole says, and the view becomes the same.
func TestPlan_PartsOfOneTransactionSayWhatTheWholeSays(t *testing.T) {
	whole := newEverything(t)
	changes := everything(whole)
	p := routeEverything(whole, changes)
	whole.store(p)
	for size := 1; size < len(changes); size++ {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f := newEverything(t)
			changes := everything(f)
			f.fetch(changes)
			var last *Plan
			var plans []*Plan
			for first := 0; first < len(changes); first += size {
				part := Part{First: first, End: min(first+size, len(changes)), Now: noon.AddDate(1, 0, 0)}
				last = Route(f.view, changes, part, last, nil)
				for _, w := range last.Endpoints {
					f.storeEndpoint(w)
				}
				plans = append(plans, last)
			}
			for _, p := range plans {
				f.log = append(f.log, p.Events...)
			}
			f.view.Apply(last)
			wantLines(t, f.events(), whole.events()...)
			for account, to := range whole.view.Endpoints {
				got := f.view.Endpoints[account]
				if got == nil || got.URL != to.URL || got.ID != to.ID || got.Secret != to.Secret {
					t.Errorf("endpoint of account %s is %+v, want %+v", account, got, to)
				}
			}
			for _, view := range []*View{f.view, whole.view} {
				view.Endpoints = nil // revisions count the parts
				view.Owners.old = nil
			}
			if got, want := shown(f.view), shown(whole.view); got != want {
				t.Errorf("the view is\n%s\nwant\n%s", got, want)
			}
		})
		whole = newEverything(t)
		changes := everything(whole)
		whole.store(routeEverything(whole, changes))
	}
}
