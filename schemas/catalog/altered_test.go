package catalog_test

import (
	"testing"

	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

// A composite type that was altered since must not cost the account its event.
func TestPlan_AValueOfAnAlteredCompositeIsItsText(t *testing.T) {
	catalog, err := catalog.Parse([]byte(`
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
