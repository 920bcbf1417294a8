package catalog

import (
	"slices"
	"strings"
	"testing"

	"walhook/schemas"
)

// updateTables are a small shop. change makes another one of them.
func updateTables(change ...func(map[string]*Table)) []*Table {
	column := func(name, kind string) TableColumn { return TableColumn{Name: name, Type: kind, NotNull: true} }
	table := func(name string, columns ...TableColumn) *Table {
		return &Table{Name: schemas.TableName{Namespace: "public", Name: name}, Kind: "table", Columns: append([]TableColumn{column("id", "bigint")}, columns...),
			Key: []string{"id"}, Logged: true, Readable: true}
	}
	to := func(t *Table, column, other string) *Table {
		t.Foreign = append(t.Foreign, ForeignKey{Name: t.Name.Name + "_" + column + "_fkey", Columns: []string{column}, Table: schemas.TableName{Namespace: "public", Name: other}, Refers: []string{"id"}})
		return t
	}
	all := map[string]*Table{
		"customers": table("customers", column("webhook_url", "text"), column("name", "text")),
		"orders":    to(table("orders", column("customer_id", "bigint"), column("total", "numeric"), column("note", "text")), "customer_id", "customers"),
		"lines":     to(table("lines", column("order_id", "bigint"), column("item", "text")), "order_id", "orders"),
	}
	for _, one := range change {
		one(all)
	}
	var list []*Table
	for _, name := range []string{"customers", "invoices", "lines", "orders", "products"} {
		if all[name] != nil {
			list = append(list, all[name])
		}
	}
	return list
}

func mustUpdate(t *testing.T, text string, tables []*Table) string {
	t.Helper()
	u, err := Update([]byte(text), tables)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	again, err := Update(u.Text, tables)
	if err != nil || string(again.Text) != string(u.Text) {
		t.Fatalf("a second update: %v\n%s\nafter\n%s", err, again.Text, u.Text)
	}
	return string(u.Text)
}

func TestUpdate_OfTheSameTablesChangesNoByte(t *testing.T) {
	t.Parallel()
	draft, err := Draft(updateTables(), schemas.TableName{})
	if err != nil {
		t.Fatal(err)
	}
	if got := mustUpdate(t, string(draft), updateTables()); got != string(draft) {
		t.Errorf("got\n%s\nof\n%s", got, draft)
	}
}

// hand is a file as a person has it: another order, other names, comments, rules.
const hand = `# our catalog; ask Ana before you change it
account: {table: public.customers, id: id, url: webhook_url} # theirs
schemas:
    # what they buy
    Purchases: # not orders
        table: public.orders
        owner: customer_id
        fields: {id: id, sum: total, # in cents
                 "the note": note}
    customers: {table: customers, owner: id, fields: [id, name]}

    items:
        table: public.lines
        owner: {column: order_id, schema: Purchases}
        fields:
        - id   # the line's
        - item
    # the last word
derive:
- hook: paid
  schema: Purchases
  when: {paid: {rises: total}}
  fields: {id: {column: id}}
- hook: bought
  description: |
    Somebody bought something.
  schema: items
  when: {bought: insert}
  fields: {what: {column: item}}

# goodbye
`

// handKnown is the same file after an update that had nothing to add.
func handKnown(t *testing.T) string {
	t.Helper()
	text := mustUpdate(t, hand, updateTables())
	if !strings.HasPrefix(strings.ReplaceAll(text, "        # Not in the list: webhook_url\n", ""), hand[:100]) {
		t.Errorf("got\n%s", text)
	}
	return text
}

func TestUpdate_KeepsWhatAPersonWrote(t *testing.T) {
	t.Parallel()
	text := handKnown(t)
	rest := text
	for line := range strings.Lines(hand) {
		_, after, ok := strings.Cut(rest, line)
		if !ok {
			t.Fatalf("lost %q in\n%s", line, text)
		}
		rest = after
	}
	if got := mustUpdate(t, text, updateTables()); got != text {
		t.Errorf("got\n%s", got)
	}
}

func TestUpdate_AddsAndComments(t *testing.T) {
	t.Parallel()
	add := func(table, column string) func(map[string]*Table) {
		return func(all map[string]*Table) {
			all[table].Columns = append(all[table].Columns, TableColumn{Name: column, Type: "text"})
		}
	}
	drop := func(table, column string) func(map[string]*Table) {
		return func(all map[string]*Table) {
			var rest []TableColumn
			for _, c := range all[table].Columns {
				if c.Name != column {
					rest = append(rest, c)
				}
			}
			all[table].Columns = rest
		}
	}
	for _, test := range []struct {
		name   string
		change []func(map[string]*Table)
		want   []string // the text has it
		never  []string
	}{
		{"a column of a map", []func(map[string]*Table){add("orders", "state")}, []string{
			"        # New: state\n        fields: {id: id, sum: total, # in cents\n                 \"the note\": note, state: state}\n"}, nil},
		{"a column of a list", []func(map[string]*Table){add("lines", "on"), add("lines", "b")}, []string{
			"        # New: \"on\", b\n        fields:\n        - id   # the line's\n        - item\n        - \"on\"\n        - b\n    # the last word\n"}, nil},
		{"a column of a list in one line", []func(map[string]*Table){add("customers", "email")}, []string{
			"    # New: email\n    customers: {table: customers, owner: id, fields: [id, name, email]}\n"}, nil},
		{"a secret", []func(map[string]*Table){add("orders", "card_number")}, []string{"        # New, and left out, since they look secret: card_number\n        fields: {"}, []string{"card_number: card_number", ", card_number}"}},
		{"a field's name that is taken", []func(map[string]*Table){add("orders", "sum")}, []string{"# New, and left out, since another field has the name: sum\n"}, nil},
		{"a table", []func(map[string]*Table){func(all map[string]*Table) {
			all["invoices"] = &Table{Name: schemas.TableName{Namespace: "public", Name: "invoices"}, Kind: "table", Key: []string{"id"}, Logged: true, Readable: true,
				Columns: []TableColumn{{Name: "id", Type: "bigint"}, {Name: "order_id", Type: "bigint", NotNull: true}, {Name: "pin", Type: "text"}}}
		}}, []string{"        - item\n    # the last word\n    # New: table public.invoices.\n    invoices:\n      table: public.invoices\n      # By its name, no foreign key says so.\n      owner: {column: order_id, schema: Purchases}\n" +
			"      # Left out, since they look secret: pin\n      fields: [id, order_id]\nderive:\n", "#   public.invoices: [id, order_id, pin]\n"}, nil},
		{"a column that is gone from a map", []func(map[string]*Table){drop("orders", "total")}, []string{
			"        # Left out, since table public.orders has no such column: total\n        fields: {id: id, # in cents\n                 \"the note\": note}\n",
			"# Left out: table public.orders has no column total.\n# - hook: paid\n#   schema: Purchases\n#   when: {paid: {rises: total}}\n#   fields: {id: {column: id}}\n- hook: bought\n"}, nil},
		{"a column that is gone from a list", []func(map[string]*Table){drop("customers", "name")}, []string{"no such column: name\n    customers: {table: customers, owner: id, fields: [id]}\n"}, nil},
		{"a column that is gone from lines", []func(map[string]*Table){drop("lines", "id")}, nil, nil},
		{"a table that is gone", []func(map[string]*Table){func(all map[string]*Table) { delete(all, "lines") }}, []string{
			"    # Left out: table public.lines does not exist in the source.\n    # items:\n    #     table: public.lines\n    #     owner: {column: order_id, schema: Purchases}\n    #     # Not in the list: order_id\n    #     fields:\n    #     - id   # the line's\n    #     - item\n    # the last word\n",
			"# Left out: schema \"items\" is not in the catalog"}, []string{"\n#   public.lines"}},
		{"a parent that is gone", []func(map[string]*Table){func(all map[string]*Table) { delete(all, "orders") }}, []string{
			"    # Purchases: # not orders\n", "    # items:\n", "# derive:\n"}, nil},
		{"a parent that is gone, and another way", []func(map[string]*Table){func(all map[string]*Table) { delete(all, "orders") }, add("lines", "x"), func(all map[string]*Table) {
			all["lines"].Columns = append(all["lines"].Columns, TableColumn{Name: "customer_id", Type: "bigint"})
		}}, []string{"        # Replaced: schema \"Purchases\" is not in the catalog", "        # owner: {column: order_id, schema: Purchases}\n        owner: customer_id\n", "        - x\n        - customer_id\n"}, nil},
		{"the owner that is gone from one line", []func(map[string]*Table){drop("customers", "webhook_url")}, []string{
			"# Correct this: table public.customers has no column webhook_url.\naccount: {table: public.customers, id: id, url: webhook_url} # theirs\n"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			before := handKnown(t)
			tables := updateTables(test.change...)
			got := mustUpdate(t, before, tables)
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("lacks\n%s", want)
				}
			}
			for _, never := range test.never {
				if strings.Contains(got, never) {
					t.Errorf("has\n%s", never)
				}
			}
			file := Read([]byte(got))
			file.Compare(tables)
			for _, f := range file.Faults() {
				if !strings.HasPrefix(f.Path, "account") {
					t.Error(f)
				}
			}
			if t.Failed() {
				t.Log(got)
			}
		})
	}
}

func TestUpdate_RefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	flow := "account: {table: customers, id: id, url: webhook_url}\nschemas: {customers: {table: customers, owner: id, fields: [id]}}\n"
	known := handKnown(t)
	invoices := func(all map[string]*Table) {
		all["invoices"] = &Table{Name: schemas.TableName{Namespace: "public", Name: "invoices"}, Kind: "table", Key: []string{"id"}, Logged: true, Readable: true,
			Columns: []TableColumn{{Name: "id", Type: "bigint"}, {Name: "customer_id", Type: "bigint", NotNull: true}}}
	}
	for _, test := range []struct {
		name, text, want string
		change           func(map[string]*Table)
	}{
		{"a file with errors", "account: {tabel: x}", "did you mean table?", nil},
		{"no file", "", "the file is empty", nil},
		{"schemas in brackets", flow, "write each schema in lines of its own", nil},
		{"a comment without its end", strings.Replace(known, knownEnd, "# The end", 1), "has lost its last line", nil},
		{"a comment that was edited", strings.Replace(known, "#   public.orders: [", "#   public.orders: ", 1), "undo what was changed in it", nil},
		{"no account table", known, "account.table: table public.customers does not exist", func(all map[string]*Table) { delete(all, "customers") }},
	} {
		tables := updateTables(invoices)
		if test.change != nil {
			tables = updateTables(test.change)
		}
		if u, err := Update([]byte(test.text), tables); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
			if err == nil {
				t.Log(string(u.Text))
			}
		}
	}
}

// TestUpdate_OfAFileOfAnyForm adds and drops a column and a table, whatever the file
// looks like otherwise.
func TestUpdate_OfAFileOfAnyForm(t *testing.T) {
	t.Parallel()
	for name, form := range map[string]func(string) string{
		"as it is":               func(s string) string { return s },
		"lines of Windows":       func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
		"no line end at the end": func(s string) string { return strings.TrimRight(s, "\n") },
		"letters outside of ASCII": func(s string) string {
			return strings.Replace(s, "table: customers,", "\"table\": \"customers\", # Größe\n      ", 1)
		},
		"a comma at the end": func(s string) string { return strings.Replace(s, "fields: [id, name]", "fields: [ id, name, ]", 1) },
		"a comment in the list": func(s string) string {
			return strings.Replace(s, "fields: [id, name]", "fields: [id, # ], [\n        name # it's\n      ]", 1)
		},
		"quotes in the list":      func(s string) string { return strings.Replace(s, "fields: [id, name]", "fields: ['id', \"name\"]", 1) },
		"text below the draft's":  func(s string) string { return s + "# mine\nevents: {}\n" },
		"text inside the draft's": func(s string) string { return strings.Replace(s, knownEnd, "# mine\n"+knownEnd, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := form(handKnown(t))
			tables := updateTables(func(all map[string]*Table) {
				customers := all["customers"]
				customers.Columns = append([]TableColumn{customers.Columns[0], customers.Columns[1], {Name: "email", Type: "text"}}, TableColumn{Name: "city", Type: "text"})
				all["products"] = &Table{Name: schemas.TableName{Namespace: "public", Name: "products"}, Kind: "table", Key: []string{"id"}, Logged: true, Readable: true,
					Columns: []TableColumn{{Name: "id", Type: "bigint"}, {Name: "customer_id", Type: "bigint", NotNull: true}}}
			})
			got := mustUpdate(t, before, tables)
			c, err := Parse([]byte(got))
			if err != nil {
				t.Fatalf("%v\n%s", err, got)
			}
			want := []Field{{"id", "id"}, {"email", "email"}, {"city", "city"}}
			if s := c.Schema("customers"); !slices.Equal(s.Fields, want) || c.Schema("products") == nil || c.Schema("items") == nil {
				t.Errorf("%v\n%s", s.Fields, got)
			}
			if n := strings.Count(got, "\n"); strings.Contains(before, "\r") && strings.Count(got, "\r\n") != n {
				t.Errorf("%q", got)
			}
			for _, mine := range []string{"# mine", "Größe", "it's", "# ], [", "events: {}"} {
				if strings.Contains(before, mine) && strings.Count(got, mine) != 1 {
					t.Errorf("%d times %s:\n%s", strings.Count(got, mine), mine, got)
				}
			}
		})
	}
}

// TestUpdate_OfOwnersInACycle: a schema whose owner is gone gets no owner among those
// that are owned through it.
func TestUpdate_OfOwnersInACycle(t *testing.T) {
	t.Parallel()
	tables := func(owned bool, more ...string) []*Table {
		table := func(name string, refers ...string) *Table {
			one := &Table{Name: schemas.TableName{Namespace: "public", Name: name}, Kind: "table", Key: []string{"id"}, Logged: true, Readable: true,
				Columns: []TableColumn{{Name: "id", Type: "bigint", NotNull: true}}}
			for _, other := range refers {
				one.Columns = append(one.Columns, TableColumn{Name: other + "_id", Type: "bigint"})
				one.Foreign = append(one.Foreign, ForeignKey{Name: name + "_" + other, Columns: []string{other + "_id"}, Table: schemas.TableName{Namespace: "public", Name: other}, Refers: []string{"id"}})
			}
			return one
		}
		customer := table("customer")
		customer.Columns = append(customer.Columns, TableColumn{Name: "webhook_url", Type: "text"})
		a := []string{"b"}
		if owned {
			a = append(a, "customer")
		}
		return []*Table{table("a", a...), table("b", append([]string{"a"}, more...)...), customer, table("c", "customer")}
	}
	for _, test := range []struct {
		name  string
		more  []string
		owner string // of b before
		want  string // of a after; "" for none
	}{
		{"no other way", nil, "{column: a_id, schema: a}", ""},
		{"another way", []string{"customer"}, "customer_id", "{column: b_id, schema: b}"},
	} {
		draft, err := Draft(tables(true, test.more...), schemas.TableName{})
		if err != nil || !strings.Contains(string(draft), "owner: "+test.owner+"\n") {
			t.Fatalf("%s: %v\n%s", test.name, err, draft)
		}
		text := mustUpdate(t, string(draft), tables(false, test.more...))
		c, err := Parse([]byte(text))
		if err != nil || c.Schema("c") == nil {
			t.Fatalf("%s: %v\n%s", test.name, err, text)
		}
		switch a, b := c.Schema("a"), c.Schema("b"); {
		case test.want == "" && (a != nil || b != nil || !strings.Contains(text, "# Left out: table public.a has no column customer_id.\n")):
			t.Errorf("%s: a schema stays without an owner:\n%s", test.name, text)
		case test.want != "" && (a == nil || b == nil || !strings.Contains(text, "\n    owner: "+test.want+"\n")):
			t.Errorf("%s: want owner %s:\n%s", test.name, test.want, text)
		}
	}
	// A person's b is owned through a, although it has a way of its own.
	draft, err := Draft(tables(true, "customer"), schemas.TableName{})
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(draft), "\n  b:")
	by := string(draft[:at]) + strings.Replace(string(draft[at:]), "owner: customer_id", "owner: {column: a_id, schema: a}", 1)
	mustUpdate(t, by, tables(false, "customer"))
}

// TestDraft_OfALargeTableThatOnlyGrows keeps no ledger of it, unless others are owned
// through its rows.
func TestDraft_OfALargeTableThatOnlyGrows(t *testing.T) {
	t.Parallel()
	large := func(name string) func(map[string]*Table) {
		return func(all map[string]*Table) { all[name].Rows, all[name].InsertOnly = manyRows, true }
	}
	for _, test := range []struct {
		name, table string
		ledger      bool
	}{{"rows that nothing hangs on", "lines", false}, {"rows that others are owned through", "orders", true}} {
		tables := updateTables(large(test.table))
		draft, err := Draft(tables, schemas.TableName{})
		if err != nil {
			t.Fatal(err)
		}
		if got := mustUpdate(t, string(draft), tables); got != string(draft) {
			t.Errorf("%s: the update differs:\n%s", test.name, got)
		}
		file := Read(draft)
		file.Compare(tables)
		if all := append(file.Faults(), file.Warnings()...); len(all) > 0 || strings.Contains(string(draft), "ledger: false\n") == test.ledger || !strings.Contains(string(draft), "only grows") {
			t.Errorf("%s: %v\n%s", test.name, all, draft)
		}
	}
}
