package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
)

// slotInfo is a slot of the server, whoever's.
type slotInfo struct {
	Name      string
	Database  string
	Active    bool
	PID       int
	Retained  int64 // bytes of WAL that the server keeps for it
	WALStatus string
	Failover  string // true, false, or "" before PostgreSQL 17
}

const slotsSQL = `
	SELECT slot_name::text, coalesce(database, '')::text, active, coalesce(active_pid, 0),
		coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint, coalesce(wal_status, ''), coalesce(to_jsonb(s) ->> 'failover', '')
	FROM pg_replication_slots s ORDER BY slot_name`

// lookAtSlots reads slots and publication before lookAtPosition reads what is
// stored: a reader that goes on meanwhile stores first and tells the slot then.
func (e *examination) lookAtSlots(ctx context.Context) {
	reader := &catalogReader{conn: e.s.Conn}
	rows, err := e.s.Query(ctx, slotsSQL)
	if err == nil {
		e.slots, err = pgx.CollectRows(rows, pgx.RowToStructByPos[slotInfo])
	}
	if err == nil {
		err = reader.inspectPublication(ctx, e.cfg, &e.slot)
		if fault, ok := errors.AsType[*Fault](err); ok {
			fault.steps, err = e.outboxPublished(ctx)
			e.fail(checkOutboxPublished, fault)
		}
	}
	if err != nil {
		e.s.Unseen(e.r, err, checkSlot, checkPublication)
		return
	}
	e.r.OK(checkOutboxPublished, "the outbox's own tables are not published")
	err = reader.inspectSlot(ctx, e.cfg, &e.slot)
	if fault, ok := errors.AsType[*Fault](err); ok {
		fault.steps = e.slotTaken(ctx)
		e.fail(checkSlot, fault)
	} else if err != nil {
		e.s.Unseen(e.r, err, checkSlot)
	}
}

// slotTaken is what to do about another's slot under the name of ours. Before
// setup another name is as good; afterwards the outbox follows this one.
func (e *examination) slotTaken(ctx context.Context) doctor.Steps {
	stored, err := e.read(ctx)
	if info := e.info(); info.Database != e.s.Database && info.Database != "" && info.Database == stored.Source.Database {
		return doctor.Steps{{Kind: doctor.Address, On: source, Text: "dbname=" + info.Database, Note: "the outbox follows that database"}}
	}
	if err != nil || stored.Source.Slot != e.cfg.Slot {
		return doctor.Steps{{Kind: doctor.Setting, Text: "--slot=" + e.cfg.Slot + "_2"}, {Kind: doctor.Command, Text: "walhook setup"}}
	}
	return append(doctor.Steps{{Kind: doctor.SQL, On: source, Text: "SELECT pg_catalog.pg_drop_replication_slot(" + doctor.QuoteLiteral(e.cfg.Slot) + ")",
		Note: "after asking whose it is: ours is gone"}}, acceptGap("what was changed in between is not sent")...)
}

// info is our slot; nil when there is none.
func (e *examination) info() *slotInfo {
	i := slices.IndexFunc(e.slots, func(s slotInfo) bool { return s.Name == e.cfg.Slot })
	if i < 0 {
		return nil
	}
	return &e.slots[i]
}

// positionChecks are those of judge, each standing on the ones before it.
func positionChecks() []string {
	return []string{checkSetup, checkSystem, checkSlot, checkPosition, checkCatalog}
}

// lookAtPosition compares what is stored with what the source has, as run does
// before it reads.
func (e *examination) lookAtPosition(ctx context.Context) {
	e.stored, e.unread = e.read(ctx)
	var end string
	err := e.s.QueryRow(ctx, walEndSQL).Scan(&end)
	if err == nil {
		e.slot.walEnd, err = schemas.ParseLSN(end)
	}
	if err != nil {
		e.s.Unseen(e.r, err, positionChecks()...)
		return
	}
	switch before := e.r.Failed(prerequisites()...); {
	case e.unread != nil:
		e.r.Skip(fmt.Sprintf("what is stored cannot be read: %v", e.unread), positionChecks()...)
		return
	case e.stored.Source == (schemas.Source{}) && before != "":
		e.r.Skip("'walhook setup' would be refused: "+before, positionChecks()...)
		return
	case e.r.Bad(checkSlot):
		e.r.Skip("not looked at: "+checkSlot, positionChecks()...)
		return
	case e.now == nil && e.stored.Source != (schemas.Source{}):
		e.r.Skip("the source could not be asked which log it is", positionChecks()...)
		return
	}
	var now system
	if e.now != nil {
		now = *e.now
	}
	failed, err := e.cfg.judge(e.stored, now, e.slot)
	if err != nil {
		e.fail(failed, err)
		at := slices.Index(positionChecks(), failed)
		e.r.Skip("not looked at: "+failed, positionChecks()[at+1:]...)
		if e.stored.Source == (schemas.Source{}) {
			e.r.Skip("not looked at: "+failed, positionChecks()...)
		}
	}
	e.positionIsGood(now)
}

// positionIsGood gives the evidence of those checks that found nothing.
func (e *examination) positionIsGood(now system) {
	if e.stored.Source == (schemas.Source{}) {
		return
	}
	if was := e.stored.Source.Database; was != e.s.Database && e.slot.exists {
		e.r.OK(checkSetup, "the outbox follows slot %s, publication %s, database %s, which was named %s before", e.stored.Source.Slot, e.stored.Source.Publication, e.s.Database, was)
	}
	e.r.OK(checkSetup, "the outbox follows slot %s, publication %s, database %s", e.stored.Source.Slot, e.stored.Source.Publication, e.stored.Source.Database)
	if e.r.Failed(checkSetup) != "" {
		return
	}
	e.r.OK(checkSystem, "system %s, timeline %d, its WAL ends at %s", now.id, now.timeline, e.slot.walEnd)
	if e.r.Failed(checkSystem, checkSlot) != "" {
		return
	}
	if info := e.info(); info != nil {
		by := "nobody reads it"
		if info.Active {
			by = fmt.Sprintf("pid %d reads it", info.PID)
		}
		e.r.OK(checkSlot, "%s: %s, wal_status %s", info.Name, by, info.WALStatus)
	}
	e.r.OK(checkPosition, "stored up to %s, the slot stands at %s", e.stored.Flush, e.slot.confirmed)
	if e.r.Failed(checkPosition) == "" {
		e.r.OK(checkCatalog, "as it was set up (%s)", e.stored.Source.Catalog)
	}
}

const (
	publicationKindSQL = `SELECT puballtables FROM pg_publication WHERE pubname = $1`

	ownListedSQL = `
		SELECT c.oid::regclass::text FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
		JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE p.pubname = $1 AND n.nspname = 'walhook' ORDER BY 1`
)

// outboxPublished takes the outbox's own tables out of the publication: by
// name, by their schema, or, where everything is published, by another
// publication in its place.
func (e *examination) outboxPublished(ctx context.Context) (doctor.Steps, error) {
	publication := schemas.QuoteIdent(e.cfg.Publication)
	const owner = "ownership of the publication"
	var all bool
	if err := e.s.QueryRow(ctx, publicationKindSQL, e.cfg.Publication).Scan(&all); err != nil {
		return nil, err
	}
	if all {
		drop := doctor.Ask(source, owner, "DROP PUBLICATION "+publication)
		drop[0].Note = "or keep it, and give --outbox a database of its own"
		if stored, err := e.read(ctx); err == nil && stored.Source == (schemas.Source{}) {
			return append(drop, doctor.Step{Kind: doctor.Command, Text: "walhook setup"}), nil // nothing was read yet
		}
		return append(drop, acceptGap("it publishes the catalog's tables alone")...), nil
	}
	rows, err := e.s.Query(ctx, ownListedSQL, e.cfg.Publication)
	var names []string
	if err == nil {
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return doctor.Ask(source, owner, fmt.Sprintf("ALTER PUBLICATION %s DROP TABLES IN SCHEMA walhook", publication)), nil
	}
	return doctor.Ask(source, owner, fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE %s", publication, strings.Join(names, ", "))), nil
}
