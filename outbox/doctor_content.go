package outbox

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// lookAtContent makes the checks of what the outbox holds.
func (e *examination) lookAtContent(ctx context.Context) {
	for _, check := range []struct {
		id   string
		look func(context.Context) error
	}{
		{checkPartitions, e.lookAtPartitions},
		{checkGaps, e.lookAtGaps},
		{checkCatalog, e.lookAtCatalog},
		{checkResyncs, e.lookAtResyncs},
		{checkSenders, e.lookAtSenders},
		{checkShards, e.lookAtShards},
		{checkSecrets, e.lookAtSecrets},
		{checkAside, e.lookAtAside},
		{checkOwnFaults, e.lookAtHeld},
		{checkUnrouted, e.lookAtUnrouted},
		{checkDeadRows, e.lookAtDeadRows},
	} {
		if err := check.look(ctx); err != nil {
			e.s.Unseen(e.r, err, check.id)
		}
	}
}

// namedPartitionSQL says whether a partition is there and attached.
const namedPartitionSQL = `
	SELECT EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'walhook' AND c.relname = $1)`

// lookAtPartitions looks for the partitions in use and the next ones.
func (e *examination) lookAtPartitions(ctx context.Context) error {
	var now time.Time
	var nextID int64
	if err := e.s.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
		return err
	}
	if err := e.s.QueryRow(ctx, currentEventIDSQL).Scan(&nextID); err != nil {
		return err
	}
	for ahead := range 2 { // maintenance makes the second one ahead within minutes
		names := []string{fmt.Sprintf("event_%06d", eventPartition(nextID)+int64(ahead))}
		for _, table := range dailyTables() {
			names = append(names, table+"_"+now.UTC().AddDate(0, 0, ahead).Format(dayFormat))
		}
		for _, name := range names {
			var there bool
			if err := e.s.QueryRow(ctx, namedPartitionSQL, name).Scan(&there); err != nil {
				return err
			}
			switch {
			case there:
			case ahead == 0:
				e.r.Fail(checkPartitions, doctor.Run("walhook setup"), "partition walhook.%s is in use and missing: nothing can be stored", name)
			default:
				e.r.Warn(checkPartitions, doctor.Run("walhook setup"), "partition walhook.%s is missing and needed next", name)
			}
		}
	}
	e.r.OK(checkPartitions, "those in use and the next ones exist; the event log is at event %d", nextID)
	return nil
}

const openGapsSQL = `
	SELECT found_at, from_lsn::text, coalesce(to_lsn::text, 'an unknown position'), reason,
		coalesce(to_lsn - from_lsn = 1, false) -- a transaction that cannot be sent
	FROM walhook.gap
	WHERE accepted_at IS NULL ORDER BY id LIMIT 5`

const acceptedGapsSQL = `
	SELECT count(*), coalesce((SELECT format('at %s on %s: %s', from_lsn, to_char(accepted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), reason)
		FROM walhook.gap WHERE accepted_at IS NOT NULL ORDER BY accepted_at DESC, id DESC LIMIT 1), '')
	FROM walhook.gap WHERE accepted_at IS NOT NULL`

// An outbox that setup has not been run for since lacks the columns.
const reconciledGapSQL = `
	SELECT id, (to_jsonb(g) ->> 'missed')::bigint, to_jsonb(g) ->> 'reconciled_at' IS NULL, (to_jsonb(g) ->> 'inserts')::bigint,
		(to_jsonb(g) ->> 'updates')::bigint, (to_jsonb(g) ->> 'deletes')::bigint, coalesce((to_jsonb(g) ->> 'results')::bigint, 0), coalesce((to_jsonb(g) ->> 'events')::bigint, 0)
	FROM walhook.gap g WHERE accepted_at IS NOT NULL AND to_jsonb(g) ->> 'missed' IS NOT NULL ORDER BY id DESC LIMIT 1`

func (e *examination) lookAtGaps(ctx context.Context) error {
	rows, err := e.s.Query(ctx, openGapsSQL)
	if err != nil {
		return err
	}
	var at time.Time
	var from, to, reason string
	var one bool
	_, err = pgx.ForEachRow(rows, []any{&at, &from, &to, &reason, &one}, func() error {
		if one {
			e.r.Fail(checkGaps, doctor.Steps{{Kind: doctor.Command, Text: "walhook run --skip-unreadable " + from,
				Note: "this skips that transaction alone: first look at what it changed; stored events are sent meanwhile"}},
				"found at %s: %s", at.UTC().Format(time.RFC3339), reason)
			return nil
		}
		e.r.Fail(checkGaps, doctor.Steps{{Kind: doctor.Command, Text: "walhook setup --accept-gap",
			Note: "first find out why; the command sends what endpoints missed"}},
			"found at %s, not accepted: %s; changes between %s and %s may be missing", at.UTC().Format(time.RFC3339), reason, from, to)
		return nil
	})
	if err != nil {
		return err
	}
	var accepted int64
	var last string
	if err := e.s.QueryRow(ctx, acceptedGapsSQL).Scan(&accepted, &last); err != nil {
		return err
	}
	text := "none"
	if accepted > 0 {
		text = fmt.Sprintf("no open gap; %d accepted, the last %s", accepted, last)
	}
	var gap, missed, inserts, updates, deletes, results, events int64
	var left bool
	switch err := e.s.QueryRow(ctx, reconciledGapSQL).Scan(&gap, &missed, &left, &inserts, &updates, &deletes, &results, &events); {
	case err == nil && left:
		e.r.Warn(checkGaps, doctor.Run("walhook run"), "gap %d: %d of %s that endpoints missed are appended; the next publisher appends the rest",
			gap, inserts+updates+deletes+results+events, doctor.Count(int(missed), "change"))
	case err == nil:
		text += fmt.Sprintf("; after gap %d endpoints got %d inserts, %d updates, %d deletes, %d results and %d emitted events", gap, inserts, updates, deletes, results, events)
	case !isNoRows(err):
		return err
	}
	var moved time.Time
	var timeline int32
	switch err := e.s.QueryRow(ctx, LastFailoverSQL).Scan(&moved, &timeline); {
	case err == nil:
		text += fmt.Sprintf("; the outbox failed over, or was restored, before %s: changes of webhooks, endpoints and replays made in the seconds before may be lost", moved.UTC().Format(time.RFC3339))
	case !isNoRows(err):
		return err
	}
	e.r.OK(checkGaps, "%s", text)
	return nil
}

const storedCatalogsSQL = `
	SELECT content, coalesce(adopted_at, asked_at), coalesce(note, ''), coalesce(from_lsn::text, '') FROM walhook.catalog WHERE state = $1`

// pendingSoon is how long an adoption without a reason may take before somebody should
// look.
const pendingSoon = 10 * time.Second

// lookAtCatalog says which catalog is in force, and reports one that waits to be.
func (e *examination) lookAtCatalog(ctx context.Context) error {
	read := func(state string) (c *catalog.Catalog, at time.Time, note, from string, err error) {
		var content []byte
		if err = e.s.QueryRow(ctx, storedCatalogsSQL, state).Scan(&content, &at, &note, &from); err == nil {
			c, err = catalog.ParseStored(content)
			if err != nil {
				e.r.Fail(checkCatalog, doctor.Steps{{Kind: doctor.Shell, Text: "install the newer walhook that stored it"}}, "%v", &catalogError{state, err})
			}
		}
		if isNoRows(err) {
			err = nil
		}
		return c, at, note, from, err
	}
	inForce, since, _, from, err := read(catalogInForce)
	if e.r.Bad(checkCatalog) || err != nil {
		return err
	}
	next, asked, note, _, err := read(catalogPending)
	if e.r.Bad(checkCatalog) || err != nil {
		return err
	}
	switch {
	case inForce == nil:
		e.r.OK(checkCatalog, "none is stored yet: the first publisher stores its own")
	case next == nil && from != "":
		e.r.OK(checkCatalog, "in force from %s on, since %s", from, since.UTC().Format(time.RFC3339))
	case next == nil:
		e.r.OK(checkCatalog, "in force since %s", since.UTC().Format(time.RFC3339))
	case note == "" && time.Since(asked) < pendingSoon:
		e.r.OK(checkCatalog, "a changed catalog was asked for at %s, and the publisher adopts it now", asked.UTC().Format(time.RFC3339))
	default:
		if note == "" {
			note = "no publisher has tried"
		}
		e.r.Warn(checkCatalog, doctor.Steps{{Kind: doctor.Command, Text: "walhook setup",
			Note: "with the file that is to be in force: it publishes itself if nobody does, and waits; with the former file it withdraws the change"}},
			"a changed catalog was asked for at %s and is not in force, because %s; it changes: %s",
			asked.UTC().Format(time.RFC3339), note, catalog.Summary(inForce.ChangesTo(next), doctor.ListMost))
	}
	return nil
}

// lookAtResyncs reports resyncs that make no progress.
func (e *examination) lookAtResyncs(ctx context.Context) error {
	rows, err := e.s.Query(ctx, standingResyncsSQL, resyncsAtOnce, mostOpenResyncs, resyncStands)
	if err != nil {
		return err
	}
	var id, sent, total int64
	var account, webhook string
	var at time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &account, &webhook, &sent, &total, &at}, func() error {
		e.r.Warn(checkResyncs, doctor.Steps{{Kind: doctor.Command, Text: "walhook run",
			Note: "where nobody publishes; otherwise 'resync interrupted' in the publisher's logs says what stops it, such as a long transaction on the source"}},
			"resync %d of account %s (webhook %s) has sent nothing since %s: %d of %s", id, account, webhook, at.UTC().Format(time.RFC3339), sent, doctor.Count(int(total), "record"))
		return nil
	})
	if err != nil {
		return err
	}
	e.r.OK(checkResyncs, "none stands")
	return nil
}

// staleAfter is how long a lease may be over before somebody should have ended
// it: any running sender does so within a lease.
const staleAfter = 30 * time.Second

const (
	staleSendersSQL = `
		SELECT s.name, extract(epoch FROM clock_timestamp() - s.lease_until)::float8, count(h.id)
		FROM walhook.sender s LEFT JOIN walhook.shard h ON h.sender = s.id
		WHERE s.lease_until < clock_timestamp() - $1::interval GROUP BY s.id ORDER BY s.id LIMIT 5`

	countSendersNowSQL = `
		SELECT count(*) FILTER (WHERE lease_until > clock_timestamp()), coalesce(string_agg(name, ', '), '') FROM walhook.sender`

	// A person runs it, whose search_path may lead elsewhere.
	dropStaleSQL = `DELETE FROM walhook.sender WHERE lease_until OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '30 seconds'::pg_catalog.interval)`
)

// lookAtSenders reports senders that ended without giving up what they held,
// and that nobody replaced.
func (e *examination) lookAtSenders(ctx context.Context) error {
	rows, err := e.s.Query(ctx, staleSendersSQL, staleAfter)
	if err != nil {
		return err
	}
	var name string
	var seconds float64
	var shards int
	_, err = pgx.ForEachRow(rows, []any{&name, &seconds, &shards}, func() error {
		e.r.Warn(checkSenders, doctor.Steps{{Kind: doctor.SQL, On: here, Text: dropStaleSQL, Note: "a new sender takes over by itself"}},
			"sender %s has disappeared: its lease expired %s ago and it still holds %s", name,
			(time.Duration(seconds * float64(time.Second))).Round(time.Second), doctor.Count(shards, "shard"))
		return nil
	})
	if err != nil {
		return err
	}
	var n int
	var names string
	if err := e.s.QueryRow(ctx, countSendersNowSQL).Scan(&n, &names); err != nil {
		return err
	}
	e.r.OK(checkSenders, "%d running %s", n, names)
	return nil
}

const shardsSQL = `
	SELECT count(*), count(*) FILTER (WHERE s.lease_until > clock_timestamp()),
		(SELECT count(*) FROM walhook.sender WHERE lease_until > clock_timestamp())
	FROM walhook.shard h LEFT JOIN walhook.sender s ON s.id = h.sender`

// secondLook is how long shards that are dealt out may be without an owner.
const secondLook = 3 * time.Second

// lookAtShards reports shards that nobody sends from: while senders run, a
// moment's look may fall between two of them, so it looks twice; while none
// runs, it matters once something waits.
func (e *examination) lookAtShards(ctx context.Context) error {
	var shards, owned, senders int
	read := func() error { return e.s.QueryRow(ctx, shardsSQL).Scan(&shards, &owned, &senders) }
	if err := read(); err != nil {
		return err
	}
	if senders > 0 && owned < shards {
		select {
		case <-time.After(secondLook):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := read(); err != nil {
			return err
		}
	}
	var oldest float64
	err := e.s.QueryRow(ctx, oldestTailSQL, measureLog, Shards).Scan(&oldest)
	if err != nil && !isNoRows(err) {
		return err
	}
	waits := err == nil
	run := doctor.Run("walhook run --role sender")
	age := time.Duration(oldest * float64(time.Second)).Round(time.Second)
	switch {
	case shards != Shards:
		e.r.Fail(checkShards, doctor.Ask(here, "", fmt.Sprintf("INSERT INTO walhook.shard (id) SELECT pg_catalog.generate_series(0, %d) ON CONFLICT DO NOTHING", Shards-1)),
			"there are %d shards, want %d: the endpoints of missing shards get nothing", shards, Shards)
	case senders > 0 && owned < shards:
		e.r.Warn(checkShards, run, "%d of %d shards %s no owner though %s %s", shards-owned, shards, doctor.Choose(shards-owned, "has", "have"), doctor.Count(senders, "sender"), doctor.Choose(senders, "runs", "run"))
	case senders == 0 && waits:
		e.r.Warn(checkShards, run, "no sender runs, and events wait, the oldest has waited for %s", age)
	default:
		e.r.OK(checkShards, "%d of %d have an owner", owned, shards)
	}
	return nil
}

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

func heldLaneCountsSQL() string {
	return `
	SELECT coalesce(l.held_reason, ''), count(*), min(` + SinceSQL("l.held_since") + `), (array_agg(p.account ORDER BY l.held_since))[1]
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

const unroutedCountsSQL = `
	SELECT coalesce(schema, ''), coalesce(reason, ''), count(*), to_char(max(at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') FROM walhook.unrouted
	WHERE at > statement_timestamp() - interval '1 day' GROUP BY schema, reason ORDER BY count(*) DESC, schema, reason LIMIT 10`

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

// updatedTables are those whose rows are updated and deleted, so that vacuum has
// to keep up with them.
func updatedTables() []string {
	return []string{"lane", "shard", "sender", "retry", "owner", "endpoint", "account", "inbox", "epoch", "source"}
}

const (
	// deadWarned is how many dead rows are too many, where they are also more
	// than the living: autovacuum comes at a fifth of these.
	deadWarned = 20_000

	deadRowsSQL = `
		SELECT s.relname::text, s.n_dead_tup, s.n_live_tup, coalesce(greatest(s.last_vacuum, s.last_autovacuum)::timestamptz(0)::text, 'never'),
			coalesce(c.reloptions::text, '') LIKE '%autovacuum_enabled=%'
		FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid WHERE s.schemaname = 'walhook' AND s.relname = ANY ($1)`
)

func (e *examination) lookAtDeadRows(ctx context.Context) error {
	rows, err := e.s.Query(ctx, deadRowsSQL, updatedTables())
	if err != nil {
		return err
	}
	var table, vacuumed string
	var dead, live, worst int64
	var switched bool
	_, err = pgx.ForEachRow(rows, []any{&table, &dead, &live, &vacuumed, &switched}, func() error {
		worst = max(worst, dead)
		if dead <= max(deadWarned, live) {
			return nil
		}
		fix := doctor.Ask(here, "", "VACUUM walhook."+schemas.QuoteIdent(table))
		if switched {
			fix = slices.Insert(fix, 0, doctor.Ask(here, "", fmt.Sprintf("ALTER TABLE walhook.%s RESET (autovacuum_enabled)", schemas.QuoteIdent(table)))...)
		}
		e.r.Warn(checkDeadRows, fix, "walhook.%s has %d dead and %d live rows, vacuumed %s: vacuum does not keep up", table, dead, live, vacuumed)
		return nil
	})
	e.r.OK(checkDeadRows, "at most %d in a table with updates", worst)
	return err
}
