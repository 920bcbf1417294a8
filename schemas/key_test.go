package schemas

import (
	"strings"
	"testing"
)

func TestKeyOf_IsShortAndNoTwoLookAlike(t *testing.T) {
	long := strings.Repeat("x", MaxKeyBytes)
	hashed := KeyOf([][]byte{[]byte(long + "y")})
	keys := map[string][]string{
		"empty":                      {""},
		"number":                     {"42"},
		"as long as allowed":         {long},
		"longer":                     {long + "y"},
		"longer, another":            {long + "z"},
		"looks like the longer one":  {hashed},
		"begins like a hash":         {hashedKey},
		"no text":                    {"\xff"},
		"no text, another":           {"\xfe"},
		"two":                        {"1", "2"},
		"two, another cut":           {"12", ""},
		"two, long":                  {long, "2"},
		"two, long, the other way":   {"2", long},
		"one that looks like length": {"1000:" + long},
	}
	seen := map[string]string{}
	for name, columns := range keys {
		var texts [][]byte
		for _, c := range columns {
			texts = append(texts, []byte(c))
		}
		key := KeyOf(texts)
		if len(key) > MaxKeyBytes {
			t.Errorf("%s: a key of %d bytes", name, len(key))
		}
		if other, there := seen[key]; there {
			t.Errorf("%s and %s are both %q", name, other, key)
		}
		seen[key] = name
		if again := KeyOf(texts); again != key {
			t.Errorf("%s: %q, and then %q", name, key, again)
		}
	}
}

// A record and those that point to it name it alike, however long its key is.
func TestPlan_OwnerKeyIsTheParentsKey(t *testing.T) {
	catalog, err := ParseCatalog([]byte(`
account: {table: users, id: id, url: url}
schemas:
  dids: {table: dids, owner: user_id, fields: [id]}
  faxes: {table: faxes, owner: {column: did_id, schema: dids}, fields: [id]}
`))
	if err != nil {
		t.Fatal(err)
	}
	relation := func(name string, columns ...string) *Relation {
		r := &Relation{Namespace: "public", Name: name, Identity: IdentityFull, PrimaryKey: []int{0}, Types: NewTypes()}
		for _, c := range columns {
			r.Columns = append(r.Columns, Column{Name: c, Type: 25})
		}
		return r
	}
	parent, child := catalog.Bind(relation("dids", "id", "user_id")), catalog.Bind(relation("faxes", "id", "did_id"))
	for _, id := range []string{"1", strings.Repeat("x", 2000), "sha256:", "\xff"} {
		key, ok := parent.Key(Tuple{{Text, []byte(id)}, {State: Null}})
		points, carried := child.OwnerKey(Tuple{{Text, []byte("7")}, {Text, []byte(id)}})
		if !ok || !carried || key != points {
			t.Errorf("the parent is %.20q, the child points to %.20q", key, points)
		}
	}
	if key, ok := parent.Key(Tuple{{State: Null}, {State: Null}}); ok {
		t.Errorf("a key %q of a row without one", key)
	}
	if owner, ok := parent.OwnerKey(Tuple{{Text, []byte("1")}, {Text, []byte("sha256:7")}}); !ok || owner != "sha256:7" {
		t.Errorf("an account's id is %q", owner)
	}
}
