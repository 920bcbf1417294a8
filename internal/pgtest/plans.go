package pgtest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Reads is what a statement read.
type Reads struct {
	Rows    float64  // also those that a filter removed
	Scanned []string // tables of which it read rows from end to end
	Nodes   []string // those that read most, for people
}

// RowsRead runs a statement and says what it read. What it writes, stays.
func RowsRead(tb testing.TB, conn *pgx.Conn, sql string) (r Reads) {
	tb.Helper()
	var text []byte
	err := conn.QueryRow(tb.Context(), "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "+sql, pgx.QueryExecModeSimpleProtocol).Scan(&text)
	var plans []struct{ Plan map[string]any }
	if err == nil {
		err = json.Unmarshal(text, &plans)
	}
	if err != nil {
		tb.Fatalf("explain %s: %v", sql, err)
	}
	for _, p := range plans {
		r.Add(p.Plan)
	}
	return r
}

// Add adds what a node of a plan, as EXPLAIN ANALYZE shows it in JSON, and those below it
// read.
func (r *Reads) Add(node map[string]any) {
	number := func(name string) float64 {
		n, _ := node[name].(float64)
		return n
	}
	relation, _ := node["Relation Name"].(string)
	if kind, _ := node["Node Type"].(string); strings.HasSuffix(kind, "Scan") && relation != "" {
		loops := number("Actual Loops")
		each := number("Actual Rows") + number("Rows Removed by Filter")
		rows := loops * (each + number("Rows Removed by Index Recheck"))
		if r.Rows += rows; rows > 1000 {
			r.Nodes = append(r.Nodes, fmt.Sprintf("%s of %s by %v: %.0f rows in %.0f loops", kind, relation, node["Index Name"], rows, loops))
		}
		if kind == "Seq Scan" && loops > 0 && each > 0 {
			r.Scanned = append(r.Scanned, relation)
		}
	}
	below, _ := node["Plans"].([]any)
	for _, one := range below {
		r.Add(one.(map[string]any))
	}
}
