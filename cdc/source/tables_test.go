package source

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/internal/pgtest"
	"walhook/schemas/catalog"
)

// counting counts queries.
type counting struct {
	*pgx.Conn
	queries int
}

func (c *counting) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	c.queries++
	return c.Conn.Query(ctx, sql, args...)
}

func (c *counting) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	c.queries++
	return c.Conn.QueryRow(ctx, sql, args...)
}

// A source may have thousands of tables. What is asked for each of them is little, and not
// what the server makes from the whole publication.
func TestLookAtTables_AsksLittleForEachTable(t *testing.T) {
	t.Parallel()
	const n = 40
	db := pgtest.Database(t)
	var tables, file strings.Builder
	tables.WriteString("CREATE TABLE customer (id int PRIMARY KEY, url text);")
	file.WriteString("account: {table: customer, id: id, url: url}\nschemas:\n")
	for i := range n {
		fmt.Fprintf(&tables, "CREATE TABLE t%d (id int PRIMARY KEY, customer_id int);", i)
		fmt.Fprintf(&file, "  t%d: {table: t%d, owner: customer_id, fields: [id]}\n", i, i)
	}
	db.Exec(t, tables.String()+"CREATE PUBLICATION half FOR TABLE customer, t0, t1")
	c, err := catalog.Parse([]byte(file.String()))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	q := &counting{Conn: conn}
	states, err := lookAtTables(t.Context(), q, Config{Catalog: c, Publication: "half"}, "")
	if err != nil {
		t.Fatal(err)
	}
	published := 0
	for _, s := range states {
		if s.published {
			published++
		}
		if s.description == nil || len(s.description.Columns) != 2 || s.key != nil {
			t.Errorf("%s: %+v", s.name, s)
		}
	}
	if len(states) != n+1 || published != 3 {
		t.Errorf("%d tables, %d published", len(states), published)
	}
	if most := 2*len(states) + 10; q.queries > most {
		t.Errorf("%d queries for %d tables, want at most %d", q.queries, len(states), most)
	}
	for _, sql := range []string{tableSQL, strings.ReplaceAll(identityTablesSQL, refusesFullSQL, "")} {
		if strings.Contains(strings.ReplaceAll(sql, unsentSQL, ""), "pg_publication_tables") {
			t.Error("a query for each table makes the list of the whole publication")
		}
	}
}
