package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// unknownField says so, and what may have been meant.
func unknownField(name string, schema *huma.Schema) string {
	text := fmt.Sprintf("unknown field %s is ignored", printable(name))
	best, least := "", 3 // letters that differ at most
	for _, known := range slices.Sorted(maps.Keys(schema.Properties)) {
		if n := distance(name, known, least); n < least {
			best, least = known, n
		}
	}
	if best != "" {
		text += ": was " + best + " meant?"
	}
	return text
}

// distance counts the letters to put in, take out or change to get from a to
// b, up to limit.
func distance(a, b string, limit int) int {
	if len(a) > 64 || len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], limit)
}

// printable bounds a name from outside that is quoted in an answer.
func printable(name string) string {
	if len(name) > 64 {
		name = strings.ToValidUTF8(name[:64], "") + "…"
	}
	return fmt.Sprintf("%q", name)
}
