package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/doctor"
	"walhook/schemas"
)

// Check compares the stored position with the source, before the reader reads. A
// mismatch is a [*Fault] or a [*GapError].
func (c Config) Check(stored schemas.Checkpoint, now System, slot SlotState) error {
	if _, err := c.checkPosition(stored, now, slot); err != nil {
		return err
	}
	_, err := c.checkPublication(stored, slot)
	return err
}

// checkPosition returns the first mismatch, and the id of doctor's check for it. Each
// comparison depends on the ones before it.
func (c Config) checkPosition(stored schemas.Checkpoint, now System, slot SlotState) (check string, err error) {
	if stored.Source == (schemas.Source{}) {
		if slot.Exists {
			return checkSlot, c.slotWithoutPosition()
		}
		return checkSetup, &checkedFault{Fault: Fault{Problem: "the source is not prepared", Fix: "run 'walhook setup', or start with --setup", Err: errNotSetUp},
			steps: doctor.Run("walhook setup")}
	}
	// Inside a transaction, its commit is beyond the flush position.
	reach := max(stored.Flush, stored.Position.Commit)
	other := now.isOther(stored, slot)
	gap := func(to schemas.LSN, format string, args ...any) error {
		return &GapError{From: stored.Flush, To: to, Slot: c.Slot, Reason: fmt.Sprintf(format, args...), OtherHistory: other}
	}
	switch was := stored.Source; {
	case was.Slot != c.Slot:
		return checkSetup, c.otherSlot(was.Slot)
	case was.Publication != c.Publication:
		return checkSetup, &checkedFault{
			Fault: Fault{
				Problem: fmt.Sprintf("the outbox follows publication %s, not %s", was.Publication, c.Publication),
				Fix:     "correct --publication, or run 'walhook setup --accept-gap' to start over with the new one",
			},
			steps: doctor.Steps{{Kind: doctor.Setting, Text: "--publication=" + was.Publication}},
		}
	case was.SystemID != now.id:
		return checkSystem, gap(slot.WALEnd, gapSystem, now.id, was.SystemID)
	// A slot belongs to one database, by its OID: if the slot exists, the database was
	// renamed.
	case was.Database != now.Database && !slot.Exists:
		return checkSetup, &checkedFault{
			Fault: Fault{
				Problem: fmt.Sprintf("the outbox follows database %s, not %s", was.Database, now.Database),
				Fix:     "correct --source, or use an outbox of its own",
			},
			steps: doctor.Steps{{Kind: doctor.Address, On: onSource, Text: "dbname=" + was.Database}},
		}
	case !slot.Exists:
		return checkSlot, gap(slot.WALEnd, gapNoSlot)
	case slot.Lost:
		return checkSlot, gap(slot.WALEnd, gapLost, slot.whyLost())
	case slot.WALEnd < reach:
		return checkSystem, gap(slot.WALEnd, gapRewound, slot.WALEnd)
	case now.strays(was.Timeline, reach) != "":
		return checkSystem, gap(slot.WALEnd, "%s", now.strays(was.Timeline, reach))
	case slot.Confirmed > stored.Flush && stored.OutboxMoved:
		return checkPosition, gap(slot.Confirmed, gapOutbox, slot.Confirmed)
	case slot.Confirmed > stored.Flush:
		return checkPosition, gap(slot.Confirmed, gapAdvanced, slot.Confirmed)
	case was.Catalog != c.Catalog.Fingerprint(): // an older walhook stored no catalog
		return checkCatalog, &checkedFault{
			Fault: Fault{
				Problem: "the catalog's accounts, tables, keys or owners are not those of the catalog in force",
				Fix:     "run 'walhook setup', which puts this one in force without a gap, or return to the former file",
			},
			steps: doctor.Steps{{Kind: doctor.Command, Text: "walhook setup", Note: "puts this catalog in force without a gap, also while 'walhook run' publishes; or return to the former file"}},
		}
	}
	return "", nil
}

// gapNow is the gap behind which setup starts over, whatever the reason. It is zero for a
// source without a stored position.
func (c Config) gapNow(stored schemas.Checkpoint, now System, slot SlotState) schemas.Gap {
	if stored.Source == (schemas.Source{}) {
		return schemas.Gap{Reason: gapStartedOver}
	}
	err := c.Check(stored, now, slot)
	if found, ok := errors.AsType[*GapError](err); ok {
		return found.Gap()
	}
	return schemas.Gap{From: stored.Flush, To: slot.WALEnd, Reason: gapStartedOver, OtherHistory: now.isOther(stored, slot)}
}

// checkPublication returns what is missing from the stream, and the id of doctor's check
// for it. The WAL has been read up to the stored position: a change after that which was
// not published is a gap.
func (c Config) checkPublication(stored schemas.Checkpoint, slot SlotState) (check string, err error) {
	gap := func(format string, args ...any) error {
		return &GapError{From: stored.Flush, To: slot.WALEnd, Slot: c.Slot,
			Reason: fmt.Sprintf(gapPublication, c.Publication, fmt.Sprintf(format, args...))}
	}
	switch {
	case slot.publication == 0:
		return checkPublication, gap(gapNoPublication)
	case slot.publication != stored.Source.PublicationOID:
		return checkPublication, gap(gapOtherPublication)
	case !slot.operations:
		return checkPublished, gap(gapOperations)
	case len(slot.unpublished) > 0:
		return checkPublished, gap(gapUnpublished, listTables(slot.unpublished))
	}
	altered, err := slot.members.since(stored.Published)
	switch {
	case err != nil:
		return checkPublished, err
	case len(altered.tables) > 0:
		return checkPublished, gap(gapInterrupted, listTables(altered.tables))
	case altered.options:
		return checkPublished, gap(gapAltered)
	}
	return "", nil
}

func listTables(tables []schemas.TableName) string {
	names := make([]string, len(tables))
	for i, table := range tables {
		names[i] = table.String()
	}
	return doctor.List(names, doctor.ListMost)
}

// CheckPublication returns a [*GapError] if the publication has lacked something since
// the stored position. It comes before [Plan.Apply], which would fix the publication. A
// source without a stored position has no gap.
func CheckPublication(ctx context.Context, cfg Config, stored schemas.Checkpoint) error {
	if stored.Source == (schemas.Source{}) {
		return nil
	}
	cfg = cfg.WithDefaults()
	source, err := NewIntrospector(ctx, cfg)
	if err != nil {
		return err
	}
	defer source.Close(ctx)
	slot, err := source.Inspect(ctx, cfg)
	if err != nil {
		return err
	}
	_, err = cfg.checkPublication(stored, slot)
	return err
}

func (c Config) otherSlot(followed string) error {
	return &checkedFault{
		Fault: Fault{
			Problem: fmt.Sprintf("the outbox follows slot %s, not %s", followed, c.Slot),
			Fix:     "correct --slot, or use an outbox of its own",
		},
		steps: doctor.Steps{{Kind: doctor.Setting, Text: "--slot=" + followed}},
	}
}

func (c Config) slotWithoutPosition() error {
	return &checkedFault{
		Fault: Fault{
			Problem: fmt.Sprintf("slot %s exists without a stored position: its snapshot is gone", c.Slot),
			Fix: fmt.Sprintf("if nobody else uses it, drop it with \"SELECT pg_catalog.pg_drop_replication_slot('%s')\" and run 'walhook setup'; "+
				"otherwise choose another name with --slot", c.Slot),
		},
		steps: doctor.Steps{
			{Kind: doctor.SQL, On: onSource, Text: "SELECT pg_catalog.pg_drop_replication_slot(" + doctor.QuoteLiteral(c.Slot) + ")",
				Note: "if nobody else uses it; otherwise choose another name with --slot"},
			{Kind: doctor.Command, Text: "walhook setup"},
		},
	}
}

func (e *GapError) Gap() schemas.Gap {
	return schemas.Gap{From: e.From, To: e.To, Reason: e.Reason, OtherHistory: e.OtherHistory}
}

// System identifies the source's WAL: the system, its timeline, and where that branched
// off from earlier timelines.
type System struct {
	id       string
	Database string
	Timeline int32
	ends     map[int32]schemas.LSN // of earlier timelines: the first byte after their end
	err      error                 // why ends could not be read
	lacks    string                // what Verify did not find in the WAL; "" for nothing
}

// Identify reads the identity of the source's WAL. It comes before replication starts: a
// walsender that streams accepts no other command.
func Identify(ctx context.Context, conn *pgconn.PgConn) (System, error) {
	result, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return System{}, fmt.Errorf("identify the source: %w", err)
	}
	s := System{id: result.SystemID, Database: result.DBName, Timeline: result.Timeline}
	if s.Timeline > 1 {
		history, err := pglogrepl.TimelineHistory(ctx, conn, s.Timeline)
		if err != nil && conn.IsClosed() {
			return System{}, fmt.Errorf("read the history of timeline %d: %w", s.Timeline, err)
		}
		if s.err = err; err == nil {
			s.ends, s.err = parseTimelineHistory(history.Content)
		}
	}
	return s, nil
}

// parseTimelineHistory parses a history file: each line has a timeline, the LSN at which
// it ended, and a reason (PostgreSQL manual, Continuous Archiving, Timelines).
func parseTimelineHistory(content []byte) (map[int32]schemas.LSN, error) {
	ends := map[int32]schemas.LSN{}
	for line := range bytes.Lines(content) {
		fields := bytes.Fields(line)
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		if len(fields) < 2 {
			return nil, fmt.Errorf("history line %q: want a timeline and an LSN", line)
		}
		timeline, err := strconv.ParseInt(string(fields[0]), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("history line %q: %w", line, err)
		}
		if ends[int32(timeline)], err = schemas.ParseLSN(string(fields[1])); err != nil {
			return nil, fmt.Errorf("history line %q: %w", line, err)
		}
	}
	return ends, nil
}

// isOther reports whether the source is not a later state of the one that was read.
func (s System) isOther(stored schemas.Checkpoint, slot SlotState) bool {
	reach := max(stored.Flush, stored.Position.Commit)
	return stored.Source.SystemID != s.id || slot.WALEnd < reach || s.strays(stored.Source.Timeline, reach) != ""
}

// strays says why a WAL that was read on timeline was up to reach does not continue in
// this one; "" if it does.
func (s System) strays(was int32, reach schemas.LSN) string {
	if s.lacks != "" {
		return s.lacks
	}
	if s.Timeline == was {
		return ""
	}
	if s.err != nil {
		return fmt.Sprintf(gapHistory, s.Timeline, was, s.err)
	}
	end, known := s.ends[was]
	switch {
	case !known:
		return fmt.Sprintf(gapTimeline, s.Timeline, was)
	case end < reach:
		return fmt.Sprintf(gapBranch, s.Timeline, was, end)
	}
	return ""
}
