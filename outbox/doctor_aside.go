package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
)

const setAsideCountsSQL = `
	SELECT loop, coalesce(reason, ''), count(*), coalesce(max(last_at) FILTER (WHERE isfinite(last_at)), clock_timestamp()),
		(array_agg(item ORDER BY last_at DESC))[1], coalesce((array_agg(detail ORDER BY last_at DESC))[1], '')
	FROM walhook.set_aside GROUP BY 1, 2 ORDER BY 1, 2`

// lookAtAside names what the loops go on without.
func (e *examination) lookAtAside(ctx context.Context) error {
	rows, err := e.s.Query(ctx, setAsideCountsSQL)
	if err != nil {
		return err
	}
	var l loop
	var reason, item, detail string
	var n int
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&l, &reason, &n, &at, &item, &detail}, func() error {
		say := e.r.Fail
		if reason == asideHost {
			say = e.r.Warn // an account's URL, and maybe as it should be
		}
		say(checkAside, asideSteps(l, reason), "%s of the loop %s %s set aside as %s, the latest at %s: %s (%s); result: %s",
			doctor.Count(n, "item"), l, doctor.Are(n), reason, at.UTC().Format(time.RFC3339), item, detail, loops()[l])
		return nil
	})
	e.r.OK(checkAside, "no item is set aside")
	return err
}

// asideSteps say what to do about an item that is set aside.
func asideSteps(l loop, reason string) doctor.Steps {
	const page = "docs/OPERATIONS.md, \"When one item is bad\", says what each loop does"
	done := doctor.Step{Kind: doctor.SQL, On: here, Text: fmt.Sprintf("DELETE FROM walhook.set_aside WHERE loop OPERATOR(pg_catalog.=) '%s'", l),
		Note: "once you have looked at it; until then this stays a finding"}
	if reason == asideHost {
		return doctor.Steps{{Kind: doctor.Shell, Text: "# if deliveries may go there: start walhook with --allow-cidr or --allow-ports; otherwise ask the account for another URL",
			Note: "delivery resumes by itself, with what was held; 'walhook endpoints' names the endpoints; " + page}}
	}
	if l == loopEndpoints || l == loopWebhooks || l == loopAccounts {
		return doctor.Steps{{Kind: doctor.Shell, Text: "# set the --secret-key that encrypted the secret, or rotate it; correct a secret_form in the account table's column; edit or delete a webhook whose row is damaged",
			Note: "delivery resumes by itself; " + page}}
	}
	return doctor.Steps{done}
}
