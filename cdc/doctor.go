package cdc

import (
	"context"
	"errors"
	"fmt"

	"walhook/doctor"
	"walhook/schemas"
)

// source is how findings and their steps name the database.
const source = "source"

// The checks of a source, by the ids that do not change.
const (
	checkReachable       = "source.reachable"
	checkVersion         = "source.version"
	checkWALLevel        = "source.wal_level"
	checkSlots           = "source.slots"
	checkSenders         = "source.senders"
	checkRole            = "source.role"
	checkRights          = "source.rights"
	checkTables          = "source.tables"
	checkUnlogged        = "source.unlogged"
	checkSelect          = "source.select"
	checkRowSecurity     = "source.row_security"
	checkColumns         = "source.columns"
	checkKeys            = "source.keys"
	checkFields          = "source.fields"
	checkSetup           = "source.setup"
	checkSystem          = "source.system"
	checkSlot            = "source.slot"
	checkPosition        = "source.position"
	checkCatalog         = "source.catalog"
	checkPublication     = "source.publication"
	checkPublished       = "source.published"
	checkOutboxPublished = "source.outbox_published"
	checkColumnLists     = "source.column_lists"
	checkRowFilters      = "source.row_filters"
	checkPartitions      = "source.partitions"
	checkIdentity        = "source.replica_identity"
	checkReaderThere     = "source.reader"
	checkRetained        = "source.retained"
	checkWALLimit        = "source.wal_limit"
	checkIdleLimit       = "source.slot_idle_limit"
	checkSynchronous     = "source.synchronous_standby"
	checkOtherSlots      = "source.other_slots"
	checkFailover        = "source.failover"
	checkSenderTimeout   = "source.wal_sender_timeout"
	checkTextSettings    = "source.text_settings"
)

// Checks names every check of [Examine], in its order.
func Checks() []string {
	ids := []string{checkReachable}
	ids = append(ids, doctor.ServerChecks(source)...)
	ids = append(ids, checkWALLevel, checkSlots, checkSenders, checkRole, checkRights,
		checkTables, checkUnlogged, checkSelect, checkRowSecurity, checkColumns, checkKeys, checkFields,
		checkSetup, checkSystem, checkSlot, checkPosition, checkCatalog,
		checkPublication, checkPublished, checkOutboxPublished, checkColumnLists, checkRowFilters, checkPartitions, checkIdentity,
		checkReaderThere, checkRetained, checkWALLimit, checkIdleLimit, checkSynchronous, checkOtherSlots, checkFailover, checkSenderTimeout, checkTextSettings)
	return append(ids, doctor.TransactionChecks(source)...)
}

// prerequisites are the checks without which setup would be refused.
func prerequisites() []string {
	return []string{checkReachable, checkVersion, checkWALLevel, checkSlots, checkSenders, checkRole, checkRights,
		checkTables, checkSelect, checkRowSecurity, checkColumns, checkOutboxPublished}
}

// examination is what is known of a source while it is looked at.
type examination struct {
	cfg  Config
	o    doctor.Options
	s    *doctor.Session
	r    *doctor.Report
	read func(context.Context) (schemas.Checkpoint, error)

	server server
	now    *system // nil when it could not be asked
	tables []tableState
	unsent map[string]unsentColumn // of the table at hand
	listed bool                    // the publication exists and is not FOR ALL TABLES
	cut    []schemas.TableName     // whose updates fail because of a list of columns, as was said
	slot   slotState
	slots  []slotInfo
	stored schemas.Checkpoint
	unread error // why stored is not known
}

// Examine looks for whatever keeps walhook from reading a source, or soon will:
// a finding for each of [Checks]. stored reads what the outbox holds. It writes
// nothing and waits for no lock for long; for a moment it takes one WAL sender,
// to ask which log this is.
func Examine(ctx context.Context, cfg Config, stored func(context.Context) (schemas.Checkpoint, error), o doctor.Options) []doctor.Finding {
	e := &examination{cfg: cfg.withDefaults(), o: o.WithDefaults(), r: doctor.NewReport(Checks()...), read: stored}
	if e.open(ctx) {
		defer e.s.Close(ctx)
		e.look(ctx)
	}
	return e.r.Findings()
}

// look makes the checks, what others stand on first.
func (e *examination) look(ctx context.Context) {
	e.s.Server(ctx, e.r, e.o)
	e.lookAtServer(ctx)
	e.lookAtReplication(ctx)
	e.lookAtTables(ctx)
	e.lookAtSlots(ctx)
	e.lookAtPosition(ctx)
	e.lookAtPublication(ctx)
	e.lookAtIdentity(ctx)
	e.lookAtSettings(ctx)
	e.s.Transactions(ctx, e.r, e.o, true, "a slot cannot be made before it ends")
}

// open connects as walhook does, but with the role's own settings, which are a
// part of what is looked at.
func (e *examination) open(ctx context.Context) bool {
	conn, err := e.cfg.parse()
	if err == nil {
		conn.ConnectTimeout = e.timeout(conn.ConnectTimeout)
		if e.s, err = doctor.Open(ctx, conn, source); err == nil {
			e.r.OK(checkReachable, "database %s at %s, as role %s", e.s.Database, e.s.PgConn().Conn().RemoteAddr(), e.s.Role)
			return true
		}
		err = connectFault(err)
	}
	var steps doctor.Steps
	if conn != nil {
		steps = doctor.ConnectSteps(conn, source, err)
	}
	e.r.Fail(checkReachable, steps, "%v", err)
	e.r.SkipRest("not looked at: the source cannot be reached")
	return false
}

// fail notes a fault or a gap as its check's.
func (e *examination) fail(check string, err error) {
	if fault, ok := errors.AsType[*Fault](err); ok {
		evidence := fault.Problem
		if fault.Err != nil && !errors.Is(fault, errNotSetUp) {
			evidence += fmt.Sprintf(" (%v)", fault.Err)
		}
		e.r.Fail(check, fault.steps, "%s", evidence)
		return
	}
	if gap, ok := errors.AsType[*GapError](err); ok {
		e.r.Fail(check, acceptGap("find out why first; what was changed in between is not sent"),
			"%s: changes from %s on may be missing", gap.Reason, gap.From)
		return
	}
	e.s.Unseen(e.r, err, check)
}

// acceptGap starts over.
func acceptGap(note string) doctor.Steps {
	return doctor.Steps{{Kind: doctor.Command, Text: "walhook setup --accept-gap", Note: note}}
}
