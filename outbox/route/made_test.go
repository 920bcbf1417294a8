package route

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"walhook/schemas"
)

// newTree is a feed of account 7 below 8 and 9, with webhooks of every kind.
func newTree(t *testing.T) *feed {
	f := newFeed(t)
	f.commit(account(7), account(8), account(9))
	f.view.Parents["7"], f.view.Parents["8"] = "8", "9"
	webhook := func(account string, id int64, s Subscription) *Endpoint {
		e := &Endpoint{Account: account, ID: id, Revision: 1, Subscription: &s}
		if s.Daily {
			e.Day = NewOpenDay(UTC(), UTC().Ended(noon), noon)
		}
		return e
	}
	f.view.SetWebhooks(3, map[string][]*Endpoint{
		"7": {
			webhook("7", 101, Subscription{Hook: HookRecords}), webhook("7", 102, Subscription{Hook: HookRecords, Schemas: []string{"notes"}}),
			webhook("7", 103, Subscription{Hook: HookRecords, Types: []string{"delete"}}), webhook("7", 104, Subscription{Hook: HookRecords, Daily: true}),
			webhook("7", 105, Subscription{Hook: HookAll}),
		},
		"9": {webhook("9", 109, Subscription{Hook: HookRecords, Subaccounts: true})},
	})
	f.forget()
	return f
}

// What a made event is sent as and to whom is what a change of the record would be.
func TestRouteMade_IsLikeAChangeOfTheRecord(t *testing.T) {
	f := newTree(t)
	for _, change := range []schemas.Change{
		dids.Insert(1, 7, "312"), users.Update(row(7, "n", "https://u:p@example.com/7?k=v", nil), row(7, "n", "https://u:p@example.com/7?k=v", nil)),
		notes.Update(nil, row(3, 7, notSent)), dids.Delete(1, nil, nil),
	} {
		changes := f.tx(change)
		f.fetch(changes)
		live := f.route(changes)
		live.Events = slices.DeleteFunc(live.Events, func(e Event) bool { return strings.HasPrefix(e.Record, "object/") }) // an event of its own
		r := change.New
		if r == nil {
			r = change.Old
		}
		key := string(r[0].Text)
		made := RouteMade(f.view, []Made{{WebhookID: changes[0].Position.WebhookID(0), Kind: change.Kind, Account: "7", Key: key,
			Relation: change.Relation, Row: r, At: changes[0].CommittedAt}})
		if change.Kind == schemas.Delete {
			live.Events = nil // of nobody: the outbox has not seen the record
			if got := linesOf(made.Events); len(got) == 0 || !strings.HasPrefix(got[0], "7 _1 dids:1 delete dids {'id':1") {
				t.Errorf("a delete is\n\t%s", strings.Join(got, "\n\t"))
			}
			continue
		}
		wantLines(t, linesOf(made.Events), linesOf(live.Events)...)
		if len(made.Owners) > 0 || made.Reached != nil || len(made.Changes) > 0 || len(made.Sums) > 0 || len(made.Endpoints) > 0 {
			t.Errorf("the plan writes more than events: %s", shown(made))
		}
		if len(live.Sums) == 0 {
			t.Error("no daily webhook counted the change")
		}
		for _, e := range made.Events {
			only := RouteMade(f.view, []Made{{WebhookID: e.WebhookID, Kind: change.Kind, Account: "7", Key: key,
				Relation: change.Relation, Row: r, Endpoint: e.To.ID, At: e.CommittedAt}})
			wantLines(t, linesOf(only.Events), line(e))
			if only.Events[0].To != e.To {
				t.Error("another endpoint got it")
			}
		}
	}
}

func TestRouteMade_RefusesWhatAChangeWouldBeRefusedFor(t *testing.T) {
	f := newTree(t)
	f.view.MaxEventBytes = 150
	strange := *dids.Relation
	strange.Unknown = "its primary key"
	lists := ofType(dids.Relation, 1009) // text[]
	plan := RouteMade(f.view, []Made{
		{Kind: schemas.Update, Account: "7", Key: "1", Relation: &strange, Row: row(1, 7, "x")},
		{Kind: schemas.Update, Account: "7", Key: "", Relation: dids.Relation, Row: row(nil, 7, "x")},
		{Kind: schemas.Update, Account: "", Key: "1", Relation: dids.Relation, Row: row(1, nil, "x")},
		{Kind: schemas.Update, Account: "7", Key: "1", Relation: ghosts.Relation, Row: row(1)},
		{Kind: schemas.Update, Account: "7", Key: "2", Relation: lists, Row: row(2, 7, "{")},
		{Kind: schemas.Update, Account: "7", Key: "3", Relation: dids.Relation, Row: row(3, 7, strings.Repeat("x", 150)), Endpoint: 101},
		{Kind: schemas.Update, Account: "6", Key: "4", Relation: dids.Relation, Row: row(4, 6, "x")},
	})
	if len(plan.Events) != 0 || len(plan.TooLarge) != 1 {
		t.Errorf("%d events, %d too large", len(plan.Events), len(plan.TooLarge))
	}
	f.unrouted = plan.Unrouted
	wantLines(t, f.listed(), "0 dids update 1 table_unknown", "0 dids update  no_key", "0 dids update 2 malformed_value")
	want := map[Reason]int{SkipTableUnknown: 1, SkipNoKey: 1, SkipNoOwner: 1, SkipNoTable: 1, SkipMalformed: 1, SkipTooLarge: 1}
	if !maps.Equal(plan.Skipped, want) {
		t.Errorf("skipped %v, want %v", plan.Skipped, want)
	}
}

// A key of type text may be empty.
func TestRouteMade_TakesAnEmptyKey(t *testing.T) {
	f := newTree(t)
	texts := *dids.Relation
	texts.Columns = slices.Clone(texts.Columns)
	texts.Columns[0].Type = 25
	plan := RouteMade(f.view, []Made{{WebhookID: "resync_1", Kind: schemas.Update, Account: "7", Relation: &texts, Row: row("", 7, "x")}})
	if len(plan.Events) == 0 || plan.Events[0].Record != "dids:" || len(plan.Skipped) > 0 {
		t.Errorf("%d events, skipped %v", len(plan.Events), plan.Skipped)
	}
}

// ofType is a relation whose last column has another type.
func ofType(relation *schemas.Relation, typ uint32) *schemas.Relation {
	other := *relation
	other.Columns = slices.Clone(other.Columns)
	other.Columns[len(other.Columns)-1].Type = typ
	return &other
}

func linesOf(events []Event) (lines []string) {
	for _, e := range events {
		lines = append(lines, line(e))
	}
	return lines
}
