package catalog

import (
	"fmt"
	"strings"
	"testing"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// ruleFor is a catalog with one rule about the table t.
func ruleFor(t *testing.T, rule string) *Catalog {
	t.Helper()
	c, err := Parse([]byte(`
account: {table: accounts, id: id, url: url}
schemas:
  things: {table: t, owner: account_id, fields: {id: id, account: account_id, on: flag, Text: txt, n: num}}
derive:
  - {hook: h, schema: things, ` + rule + `}
`))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var thingsRelation = &schemas.Relation{
	Namespace: "public", Name: "t", Identity: schemas.IdentityFull, PrimaryKey: []int{0}, Types: pgjson.NewTypes(),
	Columns: []schemas.Column{{Name: "id", Type: 20, Key: true}, {Name: "account_id", Type: 20, Key: true}, {Name: "flag", Type: 16, Key: true}, {Name: "txt", Type: 25, Key: true}, {Name: "num", Type: 1700, Key: true}, {Name: "js", Type: 114, Key: true}},
}

// thing is a row of t: "-" is not sent, "~" is null.
func thing(values ...string) schemas.Tuple {
	row := make(schemas.Tuple, len(thingsRelation.Columns))
	for i := range row {
		row[i] = schemas.Value{State: schemas.Null}
		if i < len(values) && values[i] != "~" {
			row[i] = schemas.Value{State: schemas.Text, Text: []byte(values[i])}
		}
		if i < len(values) && values[i] == "-" {
			row[i] = schemas.Value{}
		}
	}
	return row
}

// derive gives the bodies of a change, and "untold" for what cannot be told.
func derive(t *testing.T, c *Catalog, old, new schemas.Tuple) string {
	t.Helper()
	var got []string
	untold := c.Bind(thingsRelation).Derive(old, new, func(e DerivedEvent) {
		body, err := e.Render("7", nil)
		if err != nil {
			t.Error(err)
		}
		got = append(got, string(body.Body))
	})
	for range untold {
		got = append(got, "untold")
	}
	return strings.Join(got, " ")
}

func TestDerive_EvaluatesEveryConditionOfARule(t *testing.T) {
	row := func(flag, text, number string) schemas.Tuple { return thing("1", "7", flag, text, number) }
	for when, cases := range map[string][]struct {
		name     string
		old, new schemas.Tuple
		want     string
	}{
		"insert": {
			{"insert", nil, row("t", "a", "1"), "yes"},
			{"update", row("f", "a", "1"), row("t", "a", "1"), ""},
			{"delete", row("t", "a", "1"), nil, ""},
		},
		"delete": {
			{"insert", nil, row("t", "a", "1"), ""},
			{"delete", row("t", "a", "1"), nil, "yes"},
		},
		"update": {
			{"update", row("t", "a", "1"), row("t", "a", "1"), "yes"},
			{"delete", row("t", "a", "1"), nil, ""},
		},
		"[insert, delete]": {
			{"insert", nil, row("t", "a", "1"), "yes"},
			{"update", row("t", "a", "1"), row("t", "b", "1"), ""},
			{"delete", row("t", "a", "1"), nil, "yes"},
		},
		"changed": {
			{"nothing", row("t", "a", "1"), row("t", "a", "1"), ""},
			{"a field", row("t", "a", "1"), row("t", "b", "1"), "yes"},
			{"to null", row("t", "a", "1"), row("t", "~", "1"), "yes"},
			{"an unpublished column", thing("1", "7", "t", "a", "1", "{}"), thing("1", "7", "t", "a", "1", "[]"), ""},
			{"insert", nil, row("t", "a", "1"), ""},
			{"unchanged TOAST", row("t", "-", "1"), row("t", "-", "1"), ""},
			{"old row not kept", thing("1", "-", "-", "-", "-"), row("t", "a", "1"), "untold"},
		},
		"{changed: [txt, num]}": {
			{"another", row("t", "a", "1"), row("f", "a", "1"), ""},
			{"one of them", row("t", "a", "1"), row("t", "a", "2"), "yes"},
		},
		"{becomes_true: flag}": {
			{"f to t", row("f", "a", "1"), row("t", "a", "1"), "yes"},
			{"null to t", row("~", "a", "1"), row("t", "a", "1"), "yes"},
			{"t to t", row("t", "a", "1"), row("t", "b", "1"), ""},
			{"t to f", row("t", "a", "1"), row("f", "a", "1"), ""},
			{"inserted true", nil, row("t", "a", "1"), "yes"},
			{"inserted false", nil, row("f", "a", "1"), ""},
			{"deleted", row("t", "a", "1"), nil, ""},
			{"old row not kept", row("-", "a", "1"), row("t", "a", "1"), "untold"},
			{"old row not kept, but false now", row("-", "a", "1"), row("f", "a", "1"), ""},
		},
		"{becomes_true: num}": {
			{"a number", row("t", "a", "0.00"), row("t", "a", "12.50"), "yes"},
			{"wrong number", row("t", "a", "3"), row("t", "a", "12.50"), ""},
			{"not a number", row("t", "a", "0"), row("t", "a", "NaN"), ""},
		},
		"{becomes_false: flag}": {
			{"t to f", row("t", "a", "1"), row("f", "a", "1"), "yes"},
			{"t to null", row("t", "a", "1"), row("~", "a", "1"), "yes"},
			{"null to f", row("~", "a", "1"), row("f", "a", "1"), ""},
			{"deleted true", row("t", "a", "1"), nil, "yes"},
			{"deleted false", row("f", "a", "1"), nil, ""},
			{"inserted", nil, row("f", "a", "1"), ""},
		},
		"{becomes_set: txt}": {
			{"null to text", row("t", "~", "1"), row("t", "a", "1"), "yes"},
			{"empty to text", row("t", "", "1"), row("t", "a", "1"), "yes"},
			{"text to text", row("t", "a", "1"), row("t", "b", "1"), ""},
			{"null to empty", row("t", "~", "1"), row("t", "", "1"), ""},
			{"inserted", nil, row("t", "a", "1"), "yes"},
			{"unchanged TOAST, old row not kept", thing("1"), row("t", "-", "1"), ""},
		},
		"{becomes_unset: txt}": {
			{"text to null", row("t", "a", "1"), row("t", "~", "1"), "yes"},
			{"text to empty", row("t", "a", "1"), row("t", "", "1"), "yes"},
			{"deleted", row("t", "a", "1"), nil, "yes"},
			{"null to empty", row("t", "~", "1"), row("t", "", "1"), ""},
		},
		"{becomes: {txt: [done, ready]}}": {
			{"to one", row("t", "new", "1"), row("t", "done", "1"), "yes"},
			{"from one to another", row("t", "ready", "1"), row("t", "done", "1"), ""},
			{"to neither", row("t", "ready", "1"), row("t", "new", "1"), ""},
			{"inserted so", nil, row("t", "done", "1"), "yes"},
			{"deleted", row("t", "done", "1"), nil, ""},
		},
		"{becomes: {num: null}}": {
			{"to null", row("t", "a", "1"), row("t", "a", "~"), "yes"},
			{"inserted null", nil, row("t", "a", "~"), ""},
		},
		"{rises: num}": {
			{"rises", row("t", "a", "9"), row("t", "a", "10.5"), "yes"},
			{"written otherwise", row("t", "a", "10.5"), row("t", "a", "10.50"), ""},
			{"from null", row("t", "a", "~"), row("t", "a", "1"), "yes"},
			{"falls", row("t", "a", "10"), row("t", "a", "9"), ""},
			{"inserted", nil, row("t", "a", "1"), "yes"},
			{"deleted", row("t", "a", "-1"), nil, "yes"},
			{"no number", row("t", "a", "1"), row("t", "a", "Infinity"), ""},
			{"old row not kept", row("t", "a", "-"), row("t", "a", "1"), "untold"},
		},
		"{falls: num}": {
			{"falls", row("t", "a", "10"), row("t", "a", "9"), "yes"},
			{"deleted", row("t", "a", "10"), nil, "yes"},
			{"rises", row("t", "a", "1"), row("t", "a", "2"), ""},
		},
		"{on: insert, where: {num: 5, flag: true}}": {
			{"both", nil, row("t", "a", "5.0"), "yes"},
			{"one", nil, row("f", "a", "5"), ""},
			{"null", nil, row("~", "a", "5"), ""},
			{"update", row("f", "a", "5"), row("t", "a", "5"), ""},
		},
		"{on: delete, where: {txt: [null, x]}}": {
			{"null", row("t", "~", "1"), nil, "yes"},
			{"a value", row("t", "x", "1"), nil, "yes"},
			{"another", row("t", "y", "1"), nil, ""},
			{"key only", thing("1", "-", "-", "-", "-"), nil, "untold"},
		},
		"{becomes_true: missing}": {
			{"a column that is not there", row("t", "a", "1"), row("t", "b", "1"), ""},
		},
	} {
		c := ruleFor(t, "when: {yes: "+when+"}, fields: {is: {case: name}}")
		for _, test := range cases {
			want := test.want
			if want == "yes" {
				want = `{"is":"yes"}`
			}
			if got := derive(t, c, test.old, test.new); got != want {
				t.Errorf("%s: %s: got %q, want %q", when, test.name, got, want)
			}
		}
	}
}

func TestDerive_TheFirstCaseThatHoldsNamesTheEvent(t *testing.T) {
	c := ruleFor(t, "where: {num: 1}, when: {on: {becomes_true: flag}, off: {becomes_false: flag}, other: [insert, changed]}, fields: {what: {case: name}}")
	row := func(flag, text, number string) schemas.Tuple { return thing("1", "7", flag, text, number) }
	for _, test := range []struct {
		old, new schemas.Tuple
		want     string
	}{
		{nil, row("t", "a", "1"), `{"what":"on"}`},
		{nil, row("f", "a", "1"), `{"what":"other"}`},
		{row("t", "a", "1"), row("f", "b", "1"), `{"what":"off"}`},
		{row("t", "a", "1"), row("t", "b", "1"), `{"what":"other"}`},
		{row("t", "a", "1"), row("f", "b", "2"), ""},
		{row("t", "a", "1"), nil, `{"what":"off"}`},
	} {
		if got := derive(t, c, test.old, test.new); got != test.want {
			t.Errorf("%v to %v: got %q, want %q", test.old, test.new, got, test.want)
		}
	}
}

func TestDerive_BodyHasTheFieldsInTheOrderOfTheRule(t *testing.T) {
	c := ruleFor(t, `when: {x: [insert, changed, delete]}, fields: {Zz: lit "eral, a: 5, b: 1.50, c: true, d: null, e: "5",
		owner: {owner: number}, text: {owner: text}, n: {column: num}, old: {old: num}, js: {column: js}, dflt: {column: txt, default: ""},
		gone: {column: nowhere}, ch: {changed: fields}, some: {changed: [num, flag]}, named: {changed: {Number: num}}, count: {count: 1}, what: {case: name}}`)
	want := `{"Zz":"lit \"eral","a":5,"b":1.50,"c":true,"d":null,"e":"5","owner":7,"text":"7","n":2.50,"old":1.0,"js":{"k" : 1},"dflt":"",` +
		`"ch":["Text","n"],"some":["num"],"named":["Number"],"count":1,"what":"x"}`
	if got := derive(t, c, thing("1", "7", "t", "a", "1.0", "{}"), thing("1", "7", "t", "~", "2.50", `{"k" : 1}`)); got != want {
		t.Errorf("update:\n got %s\nwant %s", got, want)
	}
	want = `{"Zz":"lit \"eral","a":5,"b":1.50,"c":true,"d":null,"e":"5","owner":7,"text":"7","n":null,"js":null,"dflt":"a",` +
		`"ch":[],"some":[],"named":[],"count":1,"what":"x"}`
	if got := derive(t, c, nil, thing("1", "7", "t", "a", "~")); got != want {
		t.Errorf("insert:\n got %s\nwant %s", got, want)
	}
	want = `{"Zz":"lit \"eral","a":5,"b":1.50,"c":true,"d":null,"e":"5","owner":7,"text":"7","n":3,"old":3,"js":null,"dflt":"",` +
		`"ch":[],"some":[],"named":[],"count":1,"what":"x"}`
	if got := derive(t, c, thing("1", "7", "t", "-", "3"), nil); got != want {
		t.Errorf("delete:\n got %s\nwant %s", got, want)
	}
}

func TestDerive_AnAccountsIdIsANumberOnlyWhereItReadsAsOne(t *testing.T) {
	for id, want := range map[string]string{"7": "7", "-7": "-7", "0": "0", "007": `"007"`, "7a": `"7a"`, "": `""`, "-": `"-"`, `a"b`: `"a\"b"`, "1e5": `"1e5"`} {
		if got := string(appendOwner(nil, id, true)); got != want {
			t.Errorf("%s is written as %s, want %s", id, got, want)
		}
		if got := string(appendOwner(nil, id, false)); got != string(pgjson.AppendString(nil, []byte(id))) {
			t.Errorf("%s is written as text as %s", id, got)
		}
	}
}

func TestDerive_CountIsBoundedAndFoundInTheBody(t *testing.T) {
	c := ruleFor(t, `when: {x: insert}, fields: {a: 1, how_many: {count: num}, acc: {account: sku, default: ""}, z: {case: name}}`)
	plan := c.Bind(thingsRelation)
	render := func(number string) (b DerivedBody, key []byte, err error) {
		plan.Derive(nil, thing("1", "7", "t", "a", number), func(e DerivedEvent) {
			b, err = e.Render("7", []string{`"sku 1"`})
			key, _ = e.GroupKey("7")
		})
		return b, key, err
	}
	b, key, err := render("-12")
	if err != nil || string(b.Body) != `{"a":1,"how_many":-12,"acc":"sku 1","z":"x"}` || !b.Counts || b.Count != -12 || string(b.Body[b.From:b.To]) != "-12" {
		t.Errorf("got %+v, %v", b, err)
	}
	if string(key) != `"h"{"a":1"z":"x"` {
		t.Errorf("key is %s", key)
	}
	for _, number := range []string{"1.5", "1000000001", "~", "99999999999999999999"} {
		if b, _, err := render(number); err == nil {
			t.Errorf("count %s gives %s", number, b.Body)
		}
	}
}

func TestDerive_AccountColumnsAreAskedForOnceAndKeptBounded(t *testing.T) {
	c := Platform()
	want := []string{"external_customer_account_id", "platform_own_sku", "reseller_own_sku", "system_sku"}
	if got := c.AccountColumns(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("account columns are %v", got)
	}
	types := pgjson.NewTypes()
	for _, test := range []struct {
		v    schemas.Value
		typ  uint32
		want string
	}{
		{schemas.Value{State: schemas.Text, Text: []byte("1565")}, 25, `"1565"`},
		{schemas.Value{State: schemas.Text, Text: []byte("1565")}, 20, `1565`},
		{schemas.Value{State: schemas.Null}, 25, "null"},
		{schemas.Value{State: schemas.Text, Text: []byte(strings.Repeat("x", maxAccountColumnBytes))}, 25, "null"},
		{schemas.Value{State: schemas.Text, Text: []byte("no number")}, 20, "null"},
	} {
		if got := AccountColumnJSON(types, test.typ, test.v); got != test.want {
			t.Errorf("%.20s is kept as %.20s, want %s", test.v.Text, got, test.want)
		}
	}
	if Carrier().AccountColumns() != nil {
		t.Error("the carrier's rules ask for columns of the account: its fingerprint changes")
	}
}

func TestCarrier_HasTheFingerprintItWasSetUpWith(t *testing.T) {
	if got, want := Carrier().Fingerprint(), carrierFingerprint; got != want {
		t.Errorf("fingerprint is %s: whoever has been set up needs a new snapshot", got)
	}
}

func TestParse_ListsEveryFaultOfTheRulesWithItsLine(t *testing.T) {
	const text = `
account: {table: accounts, id: id, url: url}
schemas:
  things: {table: t, owner: account_id, fields: [id]}
derive:
  - hook: all
    schema: things
    when: {a: insert}
    fields: {x: 1}
  - hook: b
    schema: nothing
    when: {a: upsert}
    fields: {x: {column: a, old: b}}
  - hook: c
    shema: things
    when: {a: {becomes_blue: x}}
    fields: {x: {nothing: a}}
  - hook: d
    schema: things
    groups: [b]
    format: xml
    when: {a: {}}
    fields: {x: {owner: guess}, y: {count: 1}, z: {count: n}, x: 2, w: {case: name, default: 1}, v: {changed: []}}
  - hook: e
    schema: things
    when: insert
    fields: []
  - text
`
	_, err := Parse([]byte(text))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"6:5: derive[0].hook: hook all: the name is taken",
		`11:5: derive[1].schema: schema "nothing" is not in the catalog; want things`,
		"12:15: derive[1].when.a: want insert,",
		"13:29: derive[1].fields.x.old: want exactly one source",
		"14:5: derive[2]: the rule has no schema",
		"15:5: derive[2].shema: unknown key shema; did you mean schema?",
		"16:16: derive[2].when.a.becomes_blue: unknown key becomes_blue; did you mean becomes_true?",
		"17:18: derive[2].fields.x.nothing: unknown key nothing; want column,",
		"20:14: derive[3].groups[0]: group b: the name is taken",
		"21:13: derive[3].format: want json or form",
		"22:15: derive[3].when.a: want insert,",
		"23:25: derive[3].fields.x.owner: want number or text",
		"23:48: derive[3].fields.z: z is a second count",
		"23:63: derive[3].fields.x: duplicate x",
		"derive[3].fields.w: default applies only to column, old and account",
		"derive[3].fields.v.changed: want fields",
		"26:11: derive[4].when: want a map of names to conditions",
		"27:13: derive[4].fields: want a map of names to values",
		"28:5: derive[5]: want a rule",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
}

// carrierFingerprint is what an outbox that was set up with the first version
// holds.
const carrierFingerprint = "d06864c478c241eb4b50f59d1ef8f714"
