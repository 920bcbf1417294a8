package main

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/internal/pgtest"
	"walhook/schemas"
)

// TestSQLLine_MeansTheSame has the server read names and literals in both forms.
func TestSQLLine_MeansTheSame(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, name := range []string{"plain", "a\nb", "a\\b", "a\\\n\\000Ab", `a"b'c`, "\"\n'", "'\n\"\x1b[2J", "\u202ea\U000e0041 \\b", "tab\t\x01", "é\n", "''\n", "a\r\nDROP"} {
		sql := "SELECT " + doctor.QuoteLiteral(name) + " AS " + schemas.QuoteIdent(name) + ", 'other' AS \"other\""
		line := sqlLine(sql)
		if printable(line) != line {
			t.Errorf("%q is not printable", line)
		}
		rows, err := conn.Query(t.Context(), line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		got, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (text string, err error) {
			var other string
			if columns := row.FieldDescriptions(); columns[0].Name != name {
				t.Errorf("%s names %q, want %q", line, columns[0].Name, name)
			}
			return text, row.Scan(&text, &other)
		})
		if err != nil || got != name {
			t.Errorf("%s is %q (%v), want %q", line, got, err, name)
		}
	}
	for _, sql := range []string{"SELECT 1", `SELECT "unclosed` + "\n", "SELECT 'unclosed\n", "\n", "'", "\"\n\""} {
		if line := sqlLine(sql); printable(line) != line {
			t.Errorf("%q becomes %q", sql, line)
		}
	}
}
