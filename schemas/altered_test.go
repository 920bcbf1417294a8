package schemas_test

import (
	"testing"

	"walhook/schemas"
)

// A composite type that was altered since must not cost the account its event.
func TestPlan_AValueOfAnAlteredCompositeIsItsText(t *testing.T) {
	catalog, err := schemas.ParseCatalog([]byte(`
account: {table: users, id: id, url: url}
schemas:
  dids: {table: dids, owner: user_id, fields: [id, place, places]}
`))
	if err != nil {
		t.Fatal(err)
	}
	plan := catalog.Bind(&schemas.Relation{
		Namespace: "public", Name: "dids", Identity: schemas.IdentityFull, PrimaryKey: []int{0}, Types: testTypes(),
		Columns: []schemas.Column{{Name: "id", Type: oidInt4}, {Name: "user_id", Type: oidInt4}, {Name: "place", Type: oidPair}, {Name: "places", Type: oidPairA}},
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
