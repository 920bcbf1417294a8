package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
)

const unroutedCountsSQL = `
	SELECT coalesce(schema, ''), coalesce(reason, ''), count(*), to_char(max(at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') FROM walhook.unrouted
	WHERE at > clock_timestamp() - interval '1 day' GROUP BY schema, reason ORDER BY count(*) DESC, schema, reason LIMIT 10`

// lookAtUnrouted names the changes that reached nobody within a day, although
// somebody may have expected them.
func (e *examination) lookAtUnrouted(ctx context.Context) error {
	rows, err := e.s.Query(ctx, unroutedCountsSQL)
	if err != nil {
		return err
	}
	var schema, reason, at string
	var n int
	steps := doctor.Steps{{Kind: doctor.SQL, On: here, Text: "SELECT * FROM walhook.unrouted ORDER BY at DESC LIMIT 100",
		Note: "docs/OPERATIONS.md#walhookunroutedchanges explains each reason"}}
	_, err = pgx.ForEachRow(rows, []any{&schema, &reason, &n, &at}, func() error {
		e.r.Warn(checkUnrouted, steps, "%s reached nobody within a day, the latest at %s: %s", unroutedThings(n, schema), at, reason)
		return nil
	})
	e.r.OK(checkUnrouted, "no unrouted changes within a day")
	return err
}

// unroutedThings says how many of what: what no schema is known of is no change
// of a table, but a logical message or a row that could not be read.
func unroutedThings(n int, schema string) string {
	if schema == "" {
		return doctor.Choose(n, "1 message or row", fmt.Sprintf("%d messages or rows", n)) + " without a known schema"
	}
	return doctor.Count(n, "change") + " of " + schema
}
