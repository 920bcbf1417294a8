package catalog

import (
	"strings"
	"testing"

	"walhook/schemas"
)

// made is a table of numbers: "id" is its key, "name!" is never null, "name>table"
// refers to another table's id.
func made(name string, columns ...string) *Table {
	t := &Table{Name: schemas.TableName{Namespace: "public", Name: name}, Kind: "table", Logged: true, Readable: true, Key: []string{"id"}}
	for _, text := range append([]string{"id!"}, columns...) {
		bare, refers, _ := strings.Cut(text, ">")
		column, notNull := strings.CutSuffix(bare, "!")
		t.Columns = append(t.Columns, TableColumn{Name: column, Type: "bigint", NotNull: notNull})
		if refers != "" {
			t.Foreign = append(t.Foreign, ForeignKey{Name: name + "_" + column, Columns: []string{column}, Table: schemas.TableName{Namespace: "public", Name: refers}, Refers: []string{"id"}})
		}
	}
	return t
}

// TestDraft_SaysWhichRowsBelongToNoAccount has shortest ways that may be null, and longer
// ones that never are.
func TestDraft_SaysWhichRowsBelongToNoAccount(t *testing.T) {
	t.Parallel()
	text, err := Draft([]*Table{
		made("customer"),
		made("site", "customer_id!>customer"),
		made("floor", "site_id!>site"),
		made("call", "customer_id>customer", "floor_id!>floor", "site_id!>site", "phone_id!>phone"),
		made("phone", "customer_id>customer", "call_id!>call"), // a cycle: each is the other's longer way
		made("note", "phone_id!>phone"),
		made("desk", "customer_id!>customer", "floor_id!>floor"),
	}, schemas.TableName{Namespace: "public", Name: "customer"})
	if err != nil {
		t.Fatal(err)
	}
	got := string(text)
	for name, want := range map[string]string{
		"call": "    # Rows whose customer_id is null belong to no account: nothing of them is sent.\n" +
			"    owner: customer_id\n" +
			"    # or, longer and never null, by foreign key call_site_id:\n    # owner: {column: site_id, schema: site}\n" +
			"    # or, longer and never null, by foreign key call_floor_id:\n    # owner: {column: floor_id, schema: floor}\n    fields:",
		"phone": "    # Rows whose customer_id is null belong to no account: nothing of them is sent.\n    owner: customer_id\n    fields:",
		"note": "    # Rows that lead to a row of public.phone whose customer_id is null belong to no account: nothing of them\n    # is sent.\n" +
			"    owner: {column: phone_id, schema: phone}\n    fields:",
		"desk": "    owner: customer_id\n    fields:",
		"site": "    owner: customer_id\n    fields:",
	} {
		if !strings.Contains(got, "  "+name+":\n    table: public."+name+"\n"+want) {
			t.Errorf("%s lacks\n%s", name, want)
		}
	}
	file := Read(text)
	if faults := file.Faults(); len(faults) > 0 {
		t.Error(faults)
	}
	if t.Failed() {
		t.Log(got)
	}
	// What is commented is right as it stands.
	other := strings.Replace(got, "    owner: customer_id\n    # or, longer and never null, by foreign key call_site_id:\n    # owner:", "    owner:", 1)
	if faults := Read([]byte(other)).Faults(); len(faults) > 0 || other == got {
		t.Error(faults)
	}
}
