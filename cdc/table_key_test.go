package cdc

import (
	"fmt"
	"strings"
	"testing"

	"walhook/internal/pgtest"
)

// Before PostgreSQL 18 walhook cannot use a key with a generated column, since the server
// does not send it.
const generatedKey = `ALTER TABLE notes DROP CONSTRAINT notes_pkey, ADD odd bigint GENERATED ALWAYS AS (id % 2) STORED; ALTER TABLE notes ADD PRIMARY KEY (id, odd);`

func (w *world) sendsGenerated(t *testing.T) bool {
	return one[int](t, w, "SELECT current_setting('server_version_num')::int") >= 180000
}

func TestPlanSetup_NamesAKeyThatIsNotSent(t *testing.T) {
	t.Parallel()
	w := unprepared(t, pgtest.Database(t), generatedKey)
	warnings := strings.Join(planned(t, w.cfg).Warnings, "\n")
	named := strings.Contains(warnings, "the source does not send columns of the primary key of table public.notes (odd") && strings.Contains(warnings, "key: [id]")
	if named == w.sendsGenerated(t) {
		t.Errorf("warnings: %s", warnings)
	}
}

// The columns that it is computed from identify the rows, if none of them can be null.
func TestPlanSetup_NamesAKeyOfTheColumnsThatAGeneratedOneIsComputedFrom(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, columns, want string }{
		{"of another column", "ADD code int NOT NULL DEFAULT 0, ADD made int GENERATED ALWAYS AS (code % 2) STORED", "key: [id, code]"},
		{"of two", "ADD code int NOT NULL DEFAULT 0, ADD made int GENERATED ALWAYS AS (code + id) STORED", "key: [id, code]"},
		{"of what may be null", "ADD code int, ADD made int GENERATED ALWAYS AS (coalesce(code, 0)) STORED", "ALTER COLUMN made DROP EXPRESSION"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := unprepared(t, pgtest.Database(t), "ALTER TABLE notes DROP CONSTRAINT notes_pkey, "+test.columns+"; ALTER TABLE notes ADD PRIMARY KEY (id, made)")
			warnings := strings.Join(planned(t, w.cfg).Warnings, "\n")
			if strings.Contains(warnings, test.want) == w.sendsGenerated(t) {
				t.Errorf("warnings: %s", warnings)
			}
		})
	}
}

// The reader logs at once that a key has become such a one, and lists every change.
func TestReader_NamesAKeyThatIsNoLongerSent(t *testing.T) {
	t.Parallel()
	w, logs := watched(t, "ALTER TABLE notes REPLICA IDENTITY FULL;", "CREATE PUBLICATION walhook FOR TABLE users, items, notes")
	run := w.start(t, often) // a publication made so publishes no generated columns
	run.reads(t, patience)
	for statement := range strings.SplitSeq(strings.TrimSuffix(generatedKey, ";"), "; ") {
		w.exec(t, statement)
	}
	fix := "key: [id]"
	if w.sendsGenerated(t) {
		fix = "publish_generated_columns = stored"
	}
	eventually(t, "the key is named", patience, func() bool {
		for _, entry := range logs.FilterMessageSnippet("table has no usable key").All() {
			if strings.Contains(fmt.Sprint(entry.ContextMap()["fix"]), fix) {
				return true
			}
		}
		return false
	})
	w.exec(t, "ALTER TABLE notes DROP CONSTRAINT notes_pkey", "ALTER TABLE notes ADD PRIMARY KEY (id)")
	w.settle(t)
}
