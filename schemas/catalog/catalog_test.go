package catalog

import (
	"strings"
	"testing"

	"walhook/schemas"
)

func TestCarrier_HasTheNineteenSchemasOfTheContract(t *testing.T) {
	c := Carrier()
	if len(c.Schemas) != 19 {
		t.Errorf("%d schemas, want 19", len(c.Schemas))
	}
	dids := c.Schema("dids")
	if dids == nil || dids != c.SchemaOf(schemas.TableName{Namespace: "public", Name: "dids"}) || !c.IsParent(dids) {
		t.Errorf("dids is %+v", dids)
	}
	if got, want := len(c.Tables()), 21; got != want { // users is both schema and account table; results and events
		t.Errorf("%d tables, want %d", got, want)
	}
}

func TestParse_MapsOtherNames(t *testing.T) {
	c, err := Parse([]byte(`
account: {table: crm.Customers, id: no, url: hook, secret: sec}
schemas:
  numbers_eu:
    table: eu."Numbers"
    key: [country, number]
    owner: account
    fields: {id: number, country: country, label: "Label"}
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Account.Table; got != (schemas.TableName{Namespace: "crm", Name: "customers"}) {
		t.Errorf("account table is %v", got)
	}
	eu := c.Schema("numbers_eu")
	if eu.Table != (schemas.TableName{Namespace: "eu", Name: "Numbers"}) || eu.Table.String() != `eu."Numbers"` {
		t.Errorf("table is %s", eu.Table)
	}
	if len(eu.Fields) != 3 || eu.Fields[2] != (Field{Name: "label", Column: "Label"}) || eu.Fields[0] != (Field{Name: "id", Column: "number"}) {
		t.Errorf("fields are %v", eu.Fields)
	}
}

func TestParse_ListsEveryFault(t *testing.T) {
	_, err := Parse([]byte(`
account: {table: users, id: id}
schemas:
  a: {table: t, owner: {column: b_id, schema: b}, fields: [id]}
  c: {table: t, owner: user_id, fields: [id, id]}
  d: {table: 'x."y', owner: user_id, fields: []}
`))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"account: url is missing", `"b" is not in the catalog`, "the same table", "duplicate", "unclosed", "fields is empty"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

func TestParse_RefusesUnknownKeys(t *testing.T) {
	if _, err := Parse([]byte("account: {table: users, id: id, url: u}\nshemas: {}\n")); err == nil {
		t.Fatal("accepted a misspelt key")
	}
}

func TestParseTableName_FoldsAsSQLDoes(t *testing.T) {
	for in, want := range map[string]schemas.TableName{
		"users":           {Namespace: "public", Name: "users"},
		"CRM.Users":       {Namespace: "crm", Name: "users"},
		`"CRM".users`:     {Namespace: "CRM", Name: "users"},
		`a."b""c.d"`:      {Namespace: "a", Name: `b"c.d`},
		`"Mixed"."Table"`: {Namespace: "Mixed", Name: "Table"},
	} {
		got, err := parseTableName(in)
		if err != nil || got != want {
			t.Errorf("ParseTableName(%q) = %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", ".", "a.", `"a`, `a.b.c`, `"a"b`, `a"b"`, `""`} {
		if got, err := parseTableName(in); err == nil {
			t.Errorf("ParseTableName(%q) = %+v, want an error", in, got)
		}
	}
}
