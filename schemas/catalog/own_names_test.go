package catalog

import (
	"slices"
	"strings"
	"testing"
)

// A file is refused for the names that truly collide, and a stored catalog with them stays
// in force.
func TestOwnNames_AreRefusedInFilesAlone(t *testing.T) {
	const head = "account: {table: users, id: id, url: url}\nschemas:\n"
	for _, test := range []struct {
		schema  string
		refused string
		warned  string
	}{
		{"  dids: {table: dids, owner: user_id, fields: [id]}", "", ""},
		{"  resync: {table: dids, owner: user_id, fields: [id]}", "schemas.resync: schema resync: each resync ends with an event of this schema", ""},
		{"  webhook.disabled: {table: dids, owner: user_id, fields: [id]}", "names that begin with webhook. are those of walhook's notices", ""},
		{"  test: {table: dids, owner: user_id, fields: [id]}", "", "test events have this schema"},
		{"  records: {table: dids, owner: user_id, fields: [id]}", "", "a hook has this name, too"},
		{"  gap: {table: dids, owner: user_id, fields: [id]}", "", "walhook uses this name"},
		{"  webhooks: {table: dids, owner: user_id, fields: [id]}", "", ""},
		{"  dids: {table: dids, key: [], owner: user_id, fields: [id]}", "schemas.dids.key: the key names no column; name the columns, such as [id], or remove key", ""},
	} {
		file := Read([]byte(head + test.schema + "\n"))
		says := func(faults Faults, want string) bool {
			return want == "" && len(faults) == 0 || want != "" && slices.ContainsFunc(faults, func(f Fault) bool { return strings.Contains(f.Text(), want) })
		}
		if !says(file.Faults(), test.refused) || !says(file.Warnings(), test.warned) {
			t.Errorf("%s: refused for %v, warned of %v", test.schema, file.Faults(), file.Warnings())
		}
		if _, err := Parse([]byte(head + test.schema + "\n")); (err != nil) != (test.refused != "") {
			t.Errorf("%s: parsed with %v", test.schema, err)
		}
		if _, err := ParseStored([]byte(head + test.schema + "\n")); err != nil {
			t.Errorf("%s: stored, it is refused with %v", test.schema, err)
		}
	}
	if _, err := ParseStored([]byte("schemas: {}")); err == nil {
		t.Error("a stored catalog without accounts is read")
	}
}
