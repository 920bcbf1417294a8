package outbox

import (
	"context"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
)

const unroutedCountsSQL = `
	SELECT schema, reason, count(*), to_char(max(at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') FROM walhook.unrouted
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
		Note: "docs/OPERATIONS.md#walhookunroutedchanges says what each reason means"}}
	_, err = pgx.ForEachRow(rows, []any{&schema, &reason, &n, &at}, func() error {
		e.r.Warn(checkUnrouted, steps, "%d changes of %s reached nobody within a day, the latest at %s: %s", n, schema, at, reason)
		return nil
	})
	e.r.OK(checkUnrouted, "no change within a day reached nobody for a reason that somebody should know")
	return err
}
