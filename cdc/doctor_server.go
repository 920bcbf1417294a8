package cdc

import (
	"context"
	"errors"
	"strconv"
	"time"

	"walhook/doctor"
)

// codeTooManyConnections is also what a server says that has no WAL sender left.
const codeTooManyConnections = "53300"

// usageSQL counts what is taken of the slots and the WAL senders.
const usageSQL = `SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_stat_replication)`

// slack is how many more are asked for where there are too few.
const slack = 4

// timeout is how long connecting may take; what the URL says counts.
func (e *examination) timeout(configured time.Duration) time.Duration {
	return min(configured, connectTimeout/2)
}

// lookAtServer compares what the server allows with what is taken.
func (e *examination) lookAtServer(ctx context.Context) {
	var err error
	var slots, senders int
	if e.server, err = readServer(ctx, e.s); err == nil {
		err = e.s.QueryRow(ctx, usageSQL).Scan(&slots, &senders)
	}
	if err != nil {
		e.s.Unseen(e.r, err, checkWALLevel, checkSlots, checkSenders)
		return
	}
	for _, fault := range e.server.faults() {
		if fault.check != checkVersion { // the session's own check knows it
			e.fail(fault.check, fault)
		}
	}
	if e.server.dropsDefaults() {
		e.r.Warn(checkVersion, doctor.Steps{{Kind: doctor.Shell, Text: "install PostgreSQL 15.6, 16.2 or a newer minor version of the same major"}}, "PostgreSQL %d.%d: %s",
			e.server.version/10000, e.server.version%10000, droppedDefaults)
	}
	e.r.OK(checkWALLevel, "%s", e.server.walLevel)
	e.r.OK(checkSenders, "%d of %d WAL senders in use", senders, e.server.senders)
	if slots < e.server.slots || e.server.slots == 0 {
		e.r.OK(checkSlots, "%d of %d replication slots in use", slots, e.server.slots)
		return
	}
	var ours bool
	if err := e.s.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", e.cfg.Slot).Scan(&ours); err != nil {
		e.s.Unseen(e.r, err, checkSlots)
		return
	}
	if ours {
		e.r.OK(checkSlots, "all %d replication slots are in use, slot %s among them", slots, e.cfg.Slot)
		return
	}
	mend := doctor.Configure(source, "max_replication_slots", strconv.Itoa(slots+slack), true)
	mend[0].Note = "or drop a slot that nobody uses: SELECT slot_name, active FROM pg_catalog.pg_replication_slots"
	e.r.Fail(checkSlots, mend, "all %d replication slots are in use: there is none for %s", slots, e.cfg.Slot)
}

// lookAtReplication opens a session of the replication protocol, as setup and
// run do, and asks which log this is.
func (e *examination) lookAtReplication(ctx context.Context) {
	if e.r.Failed(checkVersion, checkWALLevel, checkSenders) != "" {
		e.r.Skip("not tried: the server does not replicate logically", checkRole)
		return
	}
	conn, err := e.cfg.connectReplication(ctx)
	known, refused := errors.AsType[*Fault](err)
	switch fault := e.server.roleFault(err); {
	case err == nil:
	case refused && known.check == checkRole:
		e.fail(checkRole, known)
		return
	case sqlState(err) == codeTooManyConnections:
		e.lackSenders()
		return
	case fault != err:
		e.fail(checkRole, fault)
		return
	default:
		e.s.Unseen(e.r, err, checkRole)
		return
	}
	defer closeConn(ctx, conn)
	e.r.OK(checkRole, "%s may replicate", e.server.role)
	now, err := identify(ctx, conn)
	if err != nil {
		e.s.Unseen(e.r, err, checkSystem)
		return
	}
	e.now = &now
}

// lackSenders tells of a server that has no WAL sender left for us.
func (e *examination) lackSenders() {
	mend := doctor.Configure(source, "max_wal_senders", strconv.Itoa(e.server.senders+slack), true)
	mend[0].Note = "or end one that nobody needs: SELECT pid, application_name FROM pg_catalog.pg_stat_replication"
	e.r.Fail(checkSenders, mend, "all %d WAL senders are in use, or the role has no connection left", e.server.senders)
	e.r.Skip("not tried: there is no WAL sender", checkRole)
}
