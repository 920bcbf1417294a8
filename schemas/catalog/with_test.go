package catalog

import (
	"slices"
	"strings"
	"testing"
)

const (
	withOne = `# a comment
account: {table: public.users, id: id, url: url}
schemas:
  a: {table: public.a, owner: user_id, fields: [id, user_id]}
  b: {table: public.b, owner: {column: a_id, schema: a}, fields: [id, a_id]} # another
  c: {table: public.c, owner: user_id, fields: [id, user_id]}
results: {table: public.results}
`
	withOther = `
account: {table: public.people, id: number, url: hook}
schemas:
  a: {table: public.aa, key: [x], owner: user_id, fields: [x, user_id]}
  c: {table: public.c, owner: {column: d_id, schema: d}, fields: [id, d_id]}
  d: {table: public.d, owner: user_id, fields: [id, user_id]}
events: {table: public.events}
`
)

func mustParse(t *testing.T, text string) *Catalog {
	t.Helper()
	c, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A part is as in the other catalog, and everything else as before.
func TestWith_TakesPartsOfAnotherCatalog(t *testing.T) {
	one, other := mustParse(t, withOne), mustParse(t, withOther)
	for name, test := range map[string]struct {
		schemas []string
		tables  []RowTable
		account bool
		names   string
		refused string
	}{
		"nothing":                              {names: "a b c"},
		"a schema":                             {schemas: []string{"a"}, names: "a b c"},
		"one that the other lacks":             {schemas: []string{"b"}, names: "a c"},
		"one that only the other has":          {schemas: []string{"d"}, names: "a b c d"},
		"one owned through one that is lacked": {schemas: []string{"c"}, refused: `schema "d" is not in the catalog`},
		"with that":                            {schemas: []string{"c", "d"}, names: "a b c d"},
		"the tables of rows":                   {tables: RowTables(), names: "a b c"},
		"the accounts":                         {account: true, names: "a b c"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := one.With(other, Parts{Account: test.account, Schemas: test.schemas, Tables: test.tables})
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) {
					t.Errorf("the error is %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if names := strings.Join(got.schemaNames(), " "); names != test.names {
				t.Errorf("it has %s", names)
			}
			for _, s := range got.Schemas {
				from := one
				if slices.Contains(test.schemas, s.Name) {
					from = other
				}
				if was := from.Schema(s.Name); was.Table != s.Table || !slices.Equal(was.Key, s.Key) || was.Owner != s.Owner || !slices.Equal(was.Fields, s.Fields) {
					t.Errorf("%s is %+v", s.Name, s)
				}
			}
			for _, of := range RowTables() {
				from := one
				if slices.Contains(test.tables, of) {
					from = other
				}
				if got.RowTable(of) != from.RowTable(of) {
					t.Errorf("%s are in %s", of, got.RowTable(of))
				}
			}
			if from := map[bool]*Catalog{false: one, true: other}[test.account]; got.Account != from.Account {
				t.Errorf("the accounts are %+v", got.Account)
			}
			if len(got.Hooks()) != len(one.Hooks()) {
				t.Error("it has other hooks")
			}
		})
	}
	if same, err := one.With(one, Parts{Tables: RowTables()}); err != nil || same != one {
		t.Errorf("with its own tables it is another catalog, %v", err)
	}
}

// The built-in catalogs say the same after all their schemas were taken from themselves.
func TestWith_WritesWhatItRead(t *testing.T) {
	for _, built := range []*Catalog{Carrier(), Platform()} {
		again, err := built.With(built, Parts{Account: true, Schemas: built.schemaNames()})
		if err != nil {
			t.Fatal(err)
		}
		if again == built || again.Fingerprint() != built.Fingerprint() || again.Results != built.Results || len(again.Hooks()) != len(built.Hooks()) || len(again.derived) != len(built.derived) {
			t.Errorf("it has become %s", again.YAML())
		}
	}
}
