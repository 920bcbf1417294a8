package outbox

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
)

func heldLaneCountsSQL() string {
	return `
	SELECT coalesce(l.held_reason, ''), count(*), min(` + sinceSQL("l.held_since") + `), (array_agg(p.account ORDER BY l.held_since))[1]
	FROM walhook.lane l JOIN walhook.endpoint p ON p.id = l.endpoint
	WHERE l.held_since IS NOT NULL AND l.revision >= p.revision AND p.state = 'active' AND p.deleted_at IS NULL
	GROUP BY 1 ORDER BY 1`
}

// lookAtHeld names the faults of this side that keep events from being sent.
func (e *examination) lookAtHeld(ctx context.Context) error {
	if e.r.Bad(checkRights) {
		e.r.Skip("not checked: "+checkRights, checkOwnFaults)
		return nil
	}
	rows, err := e.s.Query(ctx, heldLaneCountsSQL())
	if err != nil {
		return err
	}
	var reason, account string
	var n int
	var since time.Time
	_, err = pgx.ForEachRow(rows, []any{&reason, &n, &since, &account}, func() error {
		e.r.Fail(checkOwnFaults, heldSteps(reason), "a local error (%s) holds the events of %s, the longest since %s: account %s",
			reason, doctor.Count(n, "endpoint"), since.UTC().Format(time.RFC3339), account)
		return nil
	})
	e.r.OK(checkOwnFaults, "no local error holds events")
	return err
}

// heldSteps say what to do about a fault of a sender's machine.
func heldSteps(reason string) doctor.Steps {
	text, note := "# see WalhookAttemptsHeld in docs/OPERATIONS.md", "on the machine of each sender; delivery resumes by itself"
	switch reason {
	case "dns_here":
		text = "getent hosts example.com || cat /etc/resolv.conf"
	case "no_network":
		text = "ip route; ip -6 route"
	case "no_resources":
		text = "systemctl show walhook -p LimitNOFILE; ss -s"
	}
	return doctor.Steps{{Kind: doctor.Shell, Text: text, Note: note}}
}
