package cdc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
)

const (
	// The shares of max_slot_wal_keep_size from which on a slot is near its end.
	shareWarned, shareFailed = 0.5, 0.8

	// keepSize is suggested where there is no limit.
	keepSize = "50GB"

	// A limit of idleness that a weekend does not run into.
	idleLimitWarned = 72 * time.Hour

	// The shortest wal_sender_timeout that a slow network does not run into:
	// the reader reports every second.
	senderTimeoutWarned = 10 * time.Second
	senderTimeout       = "60s"
)

// lookAtSettings looks at the WAL that slots hold back, and at the settings of
// the server and the role.
func (e *examination) lookAtSettings(ctx context.Context) {
	limit := e.s.Number("max_slot_wal_keep_size") // in MB; -1 for none
	e.walLimit(limit)
	e.idleLimit(e.s.Number("idle_replication_slot_timeout"))
	e.synchronousStandby(ctx)
	e.slotReader(ctx)
	e.retained(limit << 20)
	e.otherSlots(limit << 20)
	e.failover()
	e.senderTimeout()
	if err := e.textSettings(ctx); err != nil {
		e.s.Unseen(e.r, err, checkTextSettings)
	}
}

func (e *examination) walLimit(limit int64) {
	if limit >= 0 {
		e.r.OK(checkWALLimit, "max_slot_wal_keep_size is %s", bytesText(float64(limit)*(1<<20)))
		return
	}
	mend := doctor.Configure(source, "max_slot_wal_keep_size", keepSize, false)
	mend[0].Note = "as much as the disk can spare: beyond it the server gives the slot up, which is a gap"
	e.r.Warn(checkWALLimit, mend, "max_slot_wal_keep_size is -1: a slot that nobody reads fills the disk")
}

// idleLimit looks at the time after which PostgreSQL 18 gives up a slot that
// nobody reads: seconds, -1 where the server has no such setting.
func (e *examination) idleLimit(seconds int64) {
	if seconds <= 0 {
		e.r.OK(checkIdleLimit, "the server gives up no slot for being idle")
		return
	}
	limit := time.Duration(seconds) * time.Second
	mend := doctor.Configure(source, "idle_replication_slot_timeout", "0", false)
	if limit < idleLimitWarned {
		e.r.Fail(checkIdleLimit, mend, "idle_replication_slot_timeout is %s: a walhook that is away for that long loses its slot, which is a gap", limit)
		return
	}
	e.r.Warn(checkIdleLimit, mend, "idle_replication_slot_timeout is %s: a walhook that is away for that long loses its slot, which is a gap", limit)
}

// slotReader says who reads our slot, where that is another program, and whether
// the source holds back what it should be sent.
func (e *examination) slotReader(ctx context.Context) {
	info := e.info()
	if info == nil || !info.Active || e.r.Bad(checkSlot) {
		return
	}
	report, err := (&catalogReader{conn: e.s.Conn}).report(ctx, e.cfg.Slot)
	if err != nil {
		e.s.Unseen(e.r, err, checkReaderThere)
		return
	}
	if report.Reader.Foreign() {
		e.r.Fail(checkReaderThere, doctor.Steps{{Kind: doctor.SQL, On: source, Needs: "pg_signal_backend, or the reader's own role",
			Text: fmt.Sprintf("SELECT pg_catalog.pg_terminate_backend(%d)", report.Reader.PID), Note: "after ending that program"}},
			"another program than walhook reads slot %s (%s): what it confirms is a gap", info.Name, report.Reader)
	}
	if why := report.Held(); why != "" {
		mend := doctor.Configure(source, "synchronized_standby_slots", "", false)
		mend[0].Note = "if those standbys will not come back; otherwise start them"
		e.r.Fail(checkReaderThere, mend, "the source sends nothing to the reader of slot %s: %s", info.Name, why)
	}
}

// retained says how far our slot is from being given up, and whether anybody
// reads it.
func (e *examination) retained(limit int64) {
	info := e.info()
	if info == nil || e.r.Bad(checkSlot) {
		e.r.Skip("there is no slot", checkRetained, checkReaderThere)
		return
	}
	if unread := int64(e.slot.walEnd) - int64(e.slot.confirmed); !info.Active && unread > e.s.Number("max_wal_size")<<20 {
		e.r.Warn(checkReaderThere, doctor.Steps{{Kind: doctor.Command, Text: "walhook run",
			Note: "or 'walhook teardown', if walhook is out of use"}},
			"nobody reads slot %s, and %s of WAL wait: more than max_wal_size", info.Name, bytesText(float64(unread)))
	} else if info.Active {
		e.r.OK(checkReaderThere, "pid %d reads, %s of WAL wait", info.PID, bytesText(float64(max(unread, 0))))
	} else {
		e.r.OK(checkReaderThere, "nobody reads, and %s of WAL wait", bytesText(float64(max(unread, 0))))
	}
	what := fmt.Sprintf("the server keeps %s of WAL for slot %s", bytesText(float64(info.Retained)), info.Name)
	mend := doctor.Configure(source, "max_slot_wal_keep_size", fmt.Sprintf("%dMB", 4*info.Retained>>20+1), false)
	mend[0].Note = "if the disk has it; it gives time to find out why the reader is behind"
	switch share := float64(info.Retained) / float64(limit); {
	case limit >= 0 && (share >= shareFailed || info.WALStatus == "unreserved"):
		e.r.Fail(checkRetained, mend, "%s, %.0f %% of max_slot_wal_keep_size: beyond it the slot is given up, which is a gap", what, 100*share)
	case limit >= 0 && share >= shareWarned:
		e.r.Warn(checkRetained, mend, "%s, %.0f %% of max_slot_wal_keep_size: beyond it the slot is given up, which is a gap", what, 100*share)
	case limit < 0 && info.Active && info.WALStatus != "reserved":
		e.r.Warn(checkRetained, doctor.Run("walhook status"), "%s, more than max_wal_size, and without a limit", what)
	case limit >= 0:
		e.r.OK(checkRetained, "%s, %.0f %% of the limit", what, 100*share)
	default:
		e.r.OK(checkRetained, "%s", what)
	}
}

// otherSlots tells of slots that nobody reads and that hold back much WAL: the
// disk is ours too.
func (e *examination) otherSlots(limit int64) {
	others := 0
	for _, info := range e.slots {
		if info.Name == e.cfg.Slot {
			continue
		}
		others++
		much := limit >= 0 && float64(info.Retained) >= shareWarned*float64(limit) ||
			limit < 0 && (info.WALStatus == "extended" || info.WALStatus == "unreserved")
		if !info.Active && much && info.WALStatus != "lost" {
			e.r.Warn(checkOtherSlots, doctor.Steps{{Kind: doctor.SQL, On: source, Needs: "REPLICATION",
				Text: "SELECT pg_catalog.pg_drop_replication_slot(" + doctor.QuoteLiteral(info.Name) + ")", Note: "if nobody uses it; ask whose it is first"}},
				"nobody reads slot %s, for which the server keeps %s of WAL", info.Name, bytesText(float64(info.Retained)))
		}
	}
	e.r.OK(checkOtherSlots, "%d others, none of them holds back much", others)
}

func (e *examination) failover() {
	switch info := e.info(); {
	case info == nil:
		e.r.Skip("there is no slot", checkFailover)
	case e.r.Bad(checkSlot, checkPosition):
		e.r.Skip("the slot is not ours", checkFailover)
	case info.Failover == "":
		e.r.OK(checkFailover, "this version keeps no slot on a standby: a failover is a gap")
	case info.Failover == "true":
		e.r.OK(checkFailover, "a standby that synchronises slots keeps it")
	default:
		command := fmt.Sprintf(`ALTER_REPLICATION_SLOT %s ( FAILOVER true )`, e.cfg.slotIdent())
		e.r.Warn(checkFailover, doctor.Steps{{Kind: doctor.Shell, Text: fmt.Sprintf(`psql "dbname=%s replication=database" -c '%s'`, e.s.Database, command),
			Note: "on the source, while nobody reads the slot"}},
			"slot %s is not kept on standbys: a failover is a gap", info.Name)
	}
}

func (e *examination) senderTimeout() {
	timeout := time.Duration(e.s.Number("wal_sender_timeout")) * time.Millisecond
	switch mend := e.s.Restore("wal_sender_timeout", senderTimeout); {
	case timeout == 0:
		e.r.Warn(checkSenderTimeout, mend, "wal_sender_timeout is 0: the slot of a reader whose machine is lost stays in use, and no standby takes over")
	case timeout < senderTimeoutWarned:
		e.r.Warn(checkSenderTimeout, mend, "wal_sender_timeout is %s: a short hiccup of the network ends the connection", timeout)
	default:
		e.r.OK(checkSenderTimeout, "%s", timeout)
	}
}

// textKept says whether a setting changes how values are printed, and what
// walhook sets it to.
func textKept(name string) (value string, kept bool) {
	for _, one := range pinned() {
		if strings.EqualFold(one.Name, name) {
			return one.Value, slices.Contains([]string{"client_encoding", "DateStyle", "IntervalStyle", "TimeZone", "extra_float_digits", "bytea_output"}, one.Name)
		}
	}
	return "", false
}

const ownSettingsSQL = `
	SELECT split_part(entry, '=', 1), substr(entry, strpos(entry, '=') + 1), setrole <> 0, setdatabase <> 0
	FROM pg_db_role_setting, unnest(setconfig) AS entry
	WHERE setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
		AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))`

// textSettings tells of settings of the role or the database that walhook has to
// overrule so that values stay what they are.
func (e *examination) textSettings(ctx context.Context) error {
	rows, err := e.s.Query(ctx, ownSettingsSQL)
	if err != nil {
		return err
	}
	role, database := schemas.QuoteIdent(e.s.Role), schemas.QuoteIdent(e.s.Database)
	var name, value string
	var ofRole, ofDatabase bool
	_, err = pgx.ForEachRow(rows, []any{&name, &value, &ofRole, &ofDatabase}, func() error {
		ours, kept := textKept(name)
		if !kept || value == ours {
			return nil
		}
		sql, of := fmt.Sprintf("ALTER ROLE ALL RESET %s", name), "every role"
		switch {
		case ofRole && ofDatabase:
			sql, of = fmt.Sprintf("ALTER ROLE %s IN DATABASE %s RESET %s", role, database, name), "the role in this database"
		case ofRole:
			sql, of = fmt.Sprintf("ALTER ROLE %s RESET %s", role, name), "the role"
		case ofDatabase:
			sql, of = fmt.Sprintf("ALTER DATABASE %s RESET %s", database, name), "the database"
		}
		e.r.Warn(checkTextSettings, doctor.Ask(source, "", sql), "%s is %q for %s; walhook pins its own, other tools would see other values", name, value, of)
		return nil
	})
	e.r.OK(checkTextSettings, "neither role nor database changes how values are printed")
	return err
}
