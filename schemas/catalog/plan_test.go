package catalog

import (
	"strings"
	"testing"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// A record and those that point to it name it alike, however long its key is.
func TestPlan_OwnerKeyIsTheParentsKey(t *testing.T) {
	catalog, err := Parse([]byte(`
account: {table: users, id: id, url: url}
schemas:
  dids: {table: dids, owner: user_id, fields: [id]}
  faxes: {table: faxes, owner: {column: did_id, schema: dids}, fields: [id]}
`))
	if err != nil {
		t.Fatal(err)
	}
	relation := func(name string, columns ...string) *schemas.Relation {
		r := &schemas.Relation{Namespace: "public", Name: name, Identity: schemas.IdentityFull, PrimaryKey: []int{0}, Types: pgjson.NewTypes()}
		for _, c := range columns {
			r.Columns = append(r.Columns, schemas.Column{Name: c, Type: 25})
		}
		return r
	}
	parent, child := catalog.Bind(relation("dids", "id", "user_id")), catalog.Bind(relation("faxes", "id", "did_id"))
	for _, id := range []string{"1", strings.Repeat("x", 2000), "sha256:", "\xff"} {
		key, ok := parent.Key(schemas.Tuple{{State: schemas.Text, Text: []byte(id)}, {State: schemas.Null}})
		points, carried := child.OwnerKey(schemas.Tuple{{State: schemas.Text, Text: []byte("7")}, {State: schemas.Text, Text: []byte(id)}})
		if !ok || !carried || key != points {
			t.Errorf("the parent is %.20q, the child points to %.20q", key, points)
		}
	}
	if key, ok := parent.Key(schemas.Tuple{{State: schemas.Null}, {State: schemas.Null}}); ok {
		t.Errorf("a key %q of a row without one", key)
	}
	if owner, ok := parent.OwnerKey(schemas.Tuple{{State: schemas.Text, Text: []byte("1")}, {State: schemas.Text, Text: []byte("sha256:7")}}); !ok || owner != "sha256:7" {
		t.Errorf("an account's id is %q", owner)
	}
}

// A composite type that was altered since must not cost the account its event.
func TestPlan_AValueOfAnAlteredCompositeIsItsText(t *testing.T) {
	catalog, err := Parse([]byte(`
account: {table: users, id: id, url: url}
schemas:
  dids: {table: dids, owner: user_id, fields: [id, place, places]}
`))
	if err != nil {
		t.Fatal(err)
	}
	const integer, pair, pairs = 23, 20000, 20001
	types := pgjson.NewTypes()
	types.Add(
		pgjson.Type{OID: pair, Name: "pair", Kind: pgjson.TypeComposite, Attributes: []pgjson.Attribute{{Name: "n", Type: integer}, {Name: "s", Type: 25}}},
		pgjson.Type{OID: pairs, Name: "pair[]", Kind: pgjson.TypeArray, Elem: pair},
	)
	plan := catalog.Bind(&schemas.Relation{
		Namespace: "public", Name: "dids", Identity: schemas.IdentityFull, PrimaryKey: []int{0}, Types: types,
		Columns: []schemas.Column{{Name: "id", Type: integer}, {Name: "user_id", Type: integer}, {Name: "place", Type: pair}, {Name: "places", Type: pairs}},
	})
	value := func(text string) schemas.Value { return schemas.Value{State: schemas.Text, Text: []byte(text)} }
	row := schemas.Tuple{value("1"), value("7"), value(`(1,"a ""b""",c)`), value(`{"(1,a)"}`)}
	body, _, err := plan.AppendEnvelope(nil, nil, schemas.Insert, row, false)
	const want = `{"type":"insert","schema":"dids","data":"{\"id\":1,\"place\":\"(1,\\\"a \\\"\\\"b\\\"\\\"\\\",c)\",\"places\":[{\"n\":1,\"s\":\"a\"}]}"}`
	if err != nil || string(body) != want {
		t.Errorf("%s, %v\nwant %s", body, err, want)
	}
	row[2] = value(`(1,"a)`)
	if _, _, err := plan.AppendEnvelope(nil, nil, schemas.Insert, row, false); err == nil {
		t.Error("a value that cannot be read is taken")
	}
}

// BenchmarkAppendEnvelope renders a row of the carrier's catalog: numbers,
// texts, booleans and nulls, quoted once as values and once as a string.
func BenchmarkAppendEnvelope(b *testing.B) {
	relation := &schemas.Relation{OID: 1, Namespace: "public", Name: "dids", Identity: schemas.IdentityFull, PrimaryKey: []int{0}, Types: pgjson.NewTypes()}
	var row schemas.Tuple
	for _, c := range []struct {
		name string
		typ  uint32
		text string // "" for null
	}{
		{"id", 20, "123456"}, {"user_id", 20, "77"}, {"call_flow_id", 20, ""}, {"channel_group_id", 20, ""},
		{"voicemail_inbox_id", 20, "9"}, {"number", 25, "13125551212"}, {"number_type", 25, "local"}, {"state", 1042, "IL"},
		{"ratecenter", 25, `CHICAGO "ZONE" 1`}, {"sms_enabled", 16, "f"}, {"xmpp_enabled", 16, "t"}, {"inbound_cnam", 16, ""},
		{"wholesale_cost", 1700, "0.003500"}, {"created_at", 1184, "2026-01-02 03:04:05.678901+00"},
	} {
		relation.Columns = append(relation.Columns, schemas.Column{Name: c.name, Type: c.typ})
		value := schemas.Value{State: schemas.Text, Text: []byte(c.text)}
		if c.text == "" {
			value = schemas.Value{State: schemas.Null}
		}
		row = append(row, value)
	}
	plan := Carrier().Bind(relation)
	var body, scratch []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if body, scratch, err = plan.AppendEnvelope(body[:0], scratch, schemas.Insert, row, false); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(body)))
}
