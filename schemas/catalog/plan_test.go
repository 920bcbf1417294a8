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
