package outbox

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"walhook/doctor"
	"walhook/outbox/route"
	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

// notesFull is owned directly, nothing is owned through it, and its old rows say
// whose they were.
var notesFull = newTable("notes", 'f', "id user_id note")

func TestPublisher_KeepsHowTablesWereDescribed(t *testing.T) {
	f := newFeed(t)
	missing := "7"
	first := &catalog.TableDescription{
		OID: 4_000_000_000, From: 0x100, Namespace: "public", Name: `d"ids`, Identity: schemas.IdentityFull, Since: []uint32{4_100_000_000},
		Ancestors: []catalog.Ancestor{{OID: 5, TableName: schemas.TableName{Namespace: "public", Name: "root"}}},
		Columns:   []catalog.DescribedColumn{{Name: "id", Type: 20, Primary: true, NotNull: true}, {Name: "c", Type: 20000, Missing: &missing}},
		Types:     []pgjson.TypeRow{{OID: 20000, Name: "cents", Kind: "domain", Base: 23, Delim: ","}},
	}
	second := *first
	second.From, second.Name = 0x200, "dids"
	if err := f.publisher.Describe(t.Context(), []*catalog.TableDescription{first, &second}); err != nil {
		t.Fatal(err)
	}
	list, err := f.publisher.Descriptions(t.Context())
	if err != nil || !reflect.DeepEqual(list, []*catalog.TableDescription{first, &second}) {
		t.Errorf("kept %v: %v", list, err)
	}
	if err := f.publisher.Undescribe(t.Context(), first.OID, 0x200); err != nil {
		t.Fatal(err)
	}
	if list, err = f.publisher.Descriptions(t.Context()); err != nil || len(list) != 1 || list[0].Name != "dids" {
		t.Errorf("kept %v: %v", list, err)
	}
}

// A change of a table that nobody described is listed, under its own name or
// its schema's, and never passed over.
func TestRoute_AChangeThatNobodyCanReadIsListed(t *testing.T) {
	f := newFeed(t)
	partition, keyless, untyped := newTable("dids_p9", 'f', "id user_id number"), newTable("dids", 'f', "id user_id number"), newTable("dids", 'f', "id user_id number")
	for _, one := range []table{partition, keyless, untyped} {
		one.Relation.Unknown = "something"
	}
	keyless.Relation.PrimaryKey = nil
	f.commit(t, account(7))
	f.commit(t, partition.Insert(1, 7, "312"), keyless.Insert(2, 7, "313"), untyped.Insert(3, 7, "314"), dids.Insert(4, 7, "315"), partition.Truncate())
	wantLines(t, rest(f.events(t), 1), `7 _4 dids:4 insert dids {'id':4,'user_id':7,'number':'315'}`)
	wantLines(t, f.unrouted(t), "dids_p9 insert  table_unknown", "dids insert  table_unknown", "dids insert 3 table_unknown")
	f.wantSkipped(t, map[string]int{route.SkipTableUnknown: 3, route.SkipNoTable: 1})
	findings := Examine(t.Context(), Config{URL: f.db.URL}, doctor.Options{})
	i := slices.IndexFunc(findings, func(finding doctor.Finding) bool { return finding.ID == checkUnrouted })
	if got := findings[i]; got.Status != doctor.Warning || !strings.Contains(got.Evidence, "2 changes of dids reached nobody") || !strings.Contains(got.Evidence, "dids_p9") {
		t.Errorf("doctor says %s: %s", got.Status, got.Evidence)
	}
}

// Whose a record is, is remembered from the start: tomorrow its table, or its
// next partition, may keep nothing of old rows but the key.
func TestRoute_AnOwnerIsKnownThoughTheReplicaIdentityIsWeakened(t *testing.T) {
	eitherWay(t, func(t *testing.T, f *feed, next func()) {
		f.commit(t, account(7), account(8))
		for id := range 4 {
			f.commit(t, notesFull.Insert(id+1, 7, "x"))
		}
		f.commit(t, notesFull.Update(row(1, 7, "x"), row(1, 7, "y")), notesFull.Update(row(2, 7, "x"), row(2, 8, "x")))
		f.forget(t)
		next()
		f.commit(t, notes.Delete(1, notSent, notSent))
		f.commit(t, notes.Update(nil, row(2, 7, "z")))
		f.commit(t, notes.Update(nil, row(3, nil, "pool")))
		f.commit(t, notes.Update(row(4, notSent, notSent), row(40, 7, "x")))
		wantLines(t, f.events(t),
			`7 _1 notes:1 delete notes {'id':1}`,
			`8 _1 notes:2 delete notes {'id':2}`, `7 _1b notes:2 insert notes {'id':2,'note':'z'}`,
			`7 _1 notes:3 delete notes {'id':3}`,
			`7 _1 notes:4 delete notes {'id':4}`, `7 _1b notes:40 insert notes {'id':40,'note':'x'}`)
		f.wantSkipped(t, map[string]int{})
	})
}

// A record that becomes nobody's, of which nobody knows whose it was, is listed.
func TestRoute_ARecordWhoseFormerOwnerIsUnknownIsListed(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.commit(t, notes.Update(nil, row(3, nil, "pool")))
	wantLines(t, rest(f.events(t), 1))
	wantLines(t, f.unrouted(t), "notes update 3 owner_unknown")
}
