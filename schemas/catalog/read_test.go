package catalog

import (
	"strings"
	"testing"

	"walhook/schemas"
)

const readAccount = "account: {table: users, id: id, url: url}\n"

func TestRead_NamesPlaceProblemAndFixOfEachFault(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text string
		want       []string // all that is said
	}{
		{"empty", "", []string{"1:1: the file is empty; want account and schemas; 'walhook catalog draft' writes a start"}},
		{"only a comment", "# nothing\n", []string{"1:1: the file is empty; want account and schemas; 'walhook catalog draft' writes a start"}},
		{"a text", "users", []string{"1:1: want a map with account and schemas"}},
		{"a list", "- users", []string{"1:1: want a map with account and schemas"}},
		{"no account", "schemas: {}", []string{"1:1: account is missing; want a map with table, id and url"}},
		{"account misspelt", "acount: {table: users}\nschemas: {}", []string{"1:1: acount: unknown key acount; did you mean account?"}},
		{"account a text", "account: users\nschemas: {}", []string{"1:10: account: want a map with table, id and url"}},
		{"account empty", "account:\nschemas: {}", []string{
			"1:1: account: table is missing; want the table of accounts, such as public.users",
			"1:1: account: id is missing; want the column of an account's id",
			"1:1: account: url is missing; want the column of an account's webhook URL",
		}},
		{"account's keys", "account: {tabel: users, id: [id], url: '', Parent: x}\nschemas: {}", []string{
			"1:11: account.tabel: unknown key tabel; did you mean table?",
			"1:29: account.id: want one name, not a list",
			"1:40: account.url: want the name of a column",
			"1:44: account.Parent: unknown key Parent; did you mean parent?",
		}},
		{"brand's keys", "account: {table: users, id: id, url: url, brand: {nam: a, colour: b, support: [c]}}\nschemas: {}", []string{
			"1:51: account.brand.nam: unknown key nam; did you mean name?",
			"1:59: account.brand.colour: unknown key colour; want name, accent, support",
			"1:79: account.brand.support: want one name, not a list",
		}},
		{"brand a text", "account: {table: users, id: id, url: url, brand: name}\nschemas: {}", []string{
			"1:50: account.brand: want a map of name, accent and support to columns of the account table"}},
		{"a key twice", readAccount + "account: {table: other}\nschemas: {}", []string{"2:1: account: duplicate account"}},
		{"a schema twice", readAccount + "schemas:\n  a: {table: a, owner: o, fields: [id]}\n  a: {table: b, owner: o, fields: [id]}", []string{"4:3: schemas.a: duplicate a"}},
		{"schemas a list", readAccount + "schemas: [a]", []string{"2:10: schemas: want a map of schemas by name"}},
		{"schema empty", readAccount + "schemas:\n  a:", []string{"3:3: schemas.a: the schema is empty; want a map with table, owner and fields, or remove the schema"}},
		{"schema a text", readAccount + "schemas:\n  a: b", []string{"3:6: schemas.a: want a map with table, owner and fields"}},
		{"schema's keys", readAccount + "schemas:\n  a: {tabel: x, ownr: y, filds: [id], keys: [id], zzz: 1}", []string{
			"3:7: schemas.a.tabel: unknown key tabel; did you mean table?",
			"3:17: schemas.a.ownr: unknown key ownr; did you mean owner?",
			"3:26: schemas.a.filds: unknown key filds; did you mean fields?",
			"3:39: schemas.a.keys: unknown key keys; did you mean key?",
			"3:51: schemas.a.zzz: unknown key zzz; want table, key, owner, fields, ledger",
		}},
		{"a name with a space", readAccount + "schemas:\n  my numbers: {table: n, owner: o, fields: [id]}", []string{
			`3:3: schemas."my numbers": schema "my numbers": a name may contain a-z, A-Z, 0-9, _ . and -, and at most 100 of them`}},
		{"wrong types", readAccount + "schemas:\n  a: {table: [t], key: id, owner: [o], fields: id}", []string{
			"3:14: schemas.a.table: want the name of a table, such as public.users",
			"3:24: schemas.a.key: want a list of columns, such as [id], not a text",
			"3:35: schemas.a.owner: owner is a list; want the column of the account's id, or {column, schema}",
			"3:48: schemas.a.fields: want a list of columns, or a map of field to column",
		}},
		{"fields", readAccount + "schemas:\n  a: {table: t, owner: o, fields: [id, id, {n: m}, ~]}\n  b: {table: u, owner: o, fields: {x: id, x: id, y: [id]}}\n  c: {table: v, owner: o, fields: []}", []string{
			"3:40: schemas.a.fields[1]: duplicate field id",
			"3:44: schemas.a.fields[2]: want the name of a column, not a map; to send a column under another name, write all fields as a map of field to column",
			"3:52: schemas.a.fields[3]: a field has no name or no column",
			"4:43: schemas.b.fields.x: duplicate x",
			"4:53: schemas.b.fields.y: want the name of a column, not a list",
			"5:35: schemas.c.fields: fields is empty; want the columns to send, such as [id, name]",
		}},
		{"a parent that is not there", readAccount + "schemas:\n  dids: {table: t, owner: o, fields: [id]}\n  e911: {table: u, owner: {column: d, schema: did}, fields: [id]}", []string{
			`4:39: schemas.e911.owner.schema: schema "did" is not in the catalog; did you mean dids?`}},
		{"half an owner", readAccount + "schemas:\n  a: {table: t, owner: {colum: o}, fields: [id]}", []string{
			"3:24: schemas.a.owner: owner: want both column and schema; the column that holds the parent's key, and the parent's schema",
			"3:25: schemas.a.owner.colum: unknown key colum; did you mean column?",
		}},
		{"owners in a loop", readAccount + "schemas:\n  a: {table: a, owner: {column: x, schema: b}, fields: [id]}\n  b: {table: b, owner: {column: x, schema: c}, fields: [id]}\n" +
			"  c: {table: c, owner: {column: x, schema: b}, fields: [id]}\n  d: {table: d, owner: {column: x, schema: d}, fields: [id]}", []string{
			"4:36: schemas.b.owner.schema: its owner is circular: b → c → b; give one of them the column of the account's id as its owner",
			"6:36: schemas.d.owner.schema: its owner is circular: d → d; give one of them the column of the account's id as its owner",
		}},
		{"one table for all", readAccount + "results: {table: users}\nevents: {table: t}\nschemas:\n  a: {table: t, owner: o, fields: [id]}\n  b: {table: public.t, owner: o, fields: [id]}", []string{
			"2:11: results.table: table public.users is the account table; name the table of results, or remove results",
			"5:7: schemas.a.table: table public.t is the table of events; name another table, or remove events",
			"6:7: schemas.b.table: schemas a and b have the same table public.t; a table is one schema: remove one of them",
		}},
		{"results and events", readAccount + "results: {tabel: r}\nevents: e\nschemas: {}", []string{
			"2:11: results.tabel: unknown key tabel; did you mean table?",
			"3:9: events: want a map with table, such as {table: public.events}",
		}},
		{"hooks", readAccount + "schemas: {}\nhooks:\n  call: {fields: {a: payload}}\n  my call: {like: cal, fileds: {a: payload}}\n  end: {fields: {a: paylod, b: {form: hook}}, targets: {numbr: a}, format: xml}\n  all: {fields: {a: hook}}", []string{
			`5:3: hooks."my call": name "my call": want a-z, A-Z, 0-9, _ . and -, and neither records nor all`,
			`5:3: hooks."my call".fields: fields is empty: want a map of field to source, such as {call_id: payload}`,
			`5:19: hooks."my call".like: like "cal": want an earlier hook; did you mean call?`,
			`5:24: hooks."my call".fileds: unknown key fileds; did you mean fields?`,
			"6:21: hooks.end.fields.a: paylod: want payload, hook, account or gregorian; did you mean payload?",
			"6:33: hooks.end.fields.b.form: unknown key form; did you mean from?",
			"6:57: hooks.end.targets.numbr: want number, extension, ringGroup, queue; did you mean number?",
			`6:68: hooks.end.format: format "xml": want json or form`,
			`7:3: hooks.all: name "all": want a-z, A-Z, 0-9, _ . and -, and neither records nor all`,
		}},
		{"a rule's names", readAccount + "schemas: {dids: {table: t, owner: o, fields: [id]}}\nderive:\n  - {hook: sms alert, schema: did, when: {a: insert}, fields: {x: 1}}\n  - {hook: all, groups: [a b], schema: dids, when: {a: insert}, fields: {x: 1}}\n" +
			"  - {hook: channel_create, schema: dids, when: {}, fields: {}}", []string{
			`4:6: derive[0].hook: hook "sms alert": a name may contain a-z, A-Z, 0-9, _ . and -, and at most 100 of them`,
			`4:23: derive[0].schema: schema "did" is not in the catalog; did you mean dids?`,
			"5:6: derive[1].hook: hook all: the name is taken; choose another name",
			`5:26: derive[1].groups[0]: group "a b": a name may contain a-z, A-Z, 0-9, _ . and -, and at most 100 of them`,
			"6:6: derive[2].hook: hook channel_create is also an event under hooks, or a built-in one: give the rule another name",
			"6:48: derive[2].when: when is empty: want a map of names to conditions, such as {added: insert}",
			"6:60: derive[2].fields: fields is empty: want a map of names to values",
		}},
		{"what is only looked at", readAccount + "---\naccount: {}", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			file := Read([]byte(test.text))
			var got []string
			for _, f := range file.Faults() {
				got = append(got, f.String())
			}
			if strings.Join(got, "\n") != strings.Join(test.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
			if _, err := Parse([]byte(test.text)); (err == nil) != (len(test.want) == 0) {
				t.Errorf("Parse says %v", err)
			}
		})
	}
}

func TestRead_SaysWhichLineIsNoYAML(t *testing.T) {
	t.Parallel()
	file := Read([]byte(readAccount + "schemas:\n  a: {table: t, owner: o, fields: [id]}\n\tb: 1\n"))
	faults := file.Faults()
	if len(faults) != 1 || faults[0].Line != 4 || !strings.HasPrefix(faults[0].Problem, "this is not YAML: ") {
		t.Errorf("got %v", faults)
	}
}

func TestRead_WarnsOfWhatIsIgnored(t *testing.T) {
	t.Parallel()
	var got []string
	for _, w := range Read([]byte(readAccount + "---\naccount: {}")).Warnings() {
		got = append(got, w.String())
	}
	want := "1:1: the file holds a second document (after a line ---), which walhook ignores; write one\n" +
		"1:1: schemas: schemas is missing: no record is sent to anybody; name tables under schemas"
	if strings.Join(got, "\n") != want {
		t.Errorf("got %s", strings.Join(got, "\n"))
	}
}

// Merges and anchors are YAML's, and a file may be made of them.
func TestParse_FollowsAnchorsAndMerges(t *testing.T) {
	t.Parallel()
	c, err := Parse([]byte(readAccount + `
schemas:
  a: &a {table: a, owner: &who user_id, fields: &names [id, name]}
  b: {<<: *a, table: b}
  c: {table: c, owner: *who, fields: *names}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c"} {
		s := c.Schema(name)
		if s == nil || s.Table.Name != name || s.Owner.Column != "user_id" || len(s.Fields) != 2 {
			t.Errorf("%s is %+v", name, s)
		}
	}
	if _, err := Parse([]byte("account: &a {<<: *a, table: users}\n")); err == nil {
		t.Error("a map that contains itself")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(readAccount + "schemas: {a: {table: t, owner: {column: c, schema: a}, fields: [id]}}"))
	f.Add([]byte("account: &a {<<: [*a, *a], table: *a}\nderive: [&b [*b]]\nhooks: {x: {like: x, fields: {a: {value: 1}}}}"))
	f.Add(carrierYAML)
	f.Add(platformYAML)
	f.Fuzz(func(t *testing.T, text []byte) {
		file := Read(text)
		file.Compare([]*Table{{Name: schemas.TableName{Namespace: "public", Name: "t"}, Kind: "table", Columns: []TableColumn{{Name: "id"}}}})
		for _, fault := range file.faults {
			if fault.Line < 1 || fault.Column < 1 || fault.Problem == "" {
				t.Errorf("%+v", fault)
			}
		}
	})
}

func TestNearest_IsWhatWasMeant(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		known []string
		want  string
	}{
		{"tabel", []string{"table", "key", "owner", "fields"}, "table"},
		{"field", []string{"table", "key", "owner", "fields"}, "fields"},
		{"customers", []string{"customer", "customer_log"}, "customer"},
		{"userId", []string{"id", "user_id"}, "user_id"},
		{"USER_ID", []string{"user_id"}, "user_id"},
		{"number", []string{"phone_number", "id"}, "phone_number"},
		{"orders", []string{"payments"}, ""},
		{"id", []string{"no", "of"}, ""},
		{"", []string{"a"}, ""},
		{"x", nil, ""},
	} {
		if got := schemas.Nearest(test.name, test.known); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
