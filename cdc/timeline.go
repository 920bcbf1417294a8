package cdc

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/schemas"
)

// system is which log the source writes: its identity, the timeline that it is
// on, and where that left those that it comes from.
type system struct {
	id       string
	database string
	timeline int32
	ends     map[int32]schemas.LSN // of earlier timelines: the first byte that is not theirs
	err      error                 // why ends could not be read
}

// identify asks for the identity of the source's log. It comes before
// replication starts: a walsender that streams takes no other command.
func identify(ctx context.Context, conn *pgconn.PgConn) (system, error) {
	result, err := pglogrepl.IdentifySystem(ctx, conn)
	if err != nil {
		return system{}, fmt.Errorf("identify the source: %w", err)
	}
	s := system{id: result.SystemID, database: result.DBName, timeline: result.Timeline}
	if s.timeline > 1 {
		history, err := pglogrepl.TimelineHistory(ctx, conn, s.timeline)
		if err != nil && conn.IsClosed() {
			return system{}, fmt.Errorf("read the history of timeline %d: %w", s.timeline, err)
		}
		if s.err = err; err == nil {
			s.ends, s.err = parseTimelineHistory(history.Content)
		}
	}
	return s, nil
}

// parseTimelineHistory reads a history file: on each line a timeline, the LSN
// at which it was left, and a reason (PostgreSQL manual, Continuous Archiving,
// Timelines).
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

// strays says why a log that was read on timeline was up to reach does not go
// on in this one; "" when it does.
func (s system) strays(was int32, reach schemas.LSN) string {
	if s.timeline == was {
		return ""
	}
	if s.err != nil {
		return fmt.Sprintf("the source is on timeline %d, was on %d, and its history cannot be read: %v", s.timeline, was, s.err)
	}
	end, known := s.ends[was]
	switch {
	case !known:
		return fmt.Sprintf("the source is on timeline %d, which does not come from timeline %d", s.timeline, was)
	case end < reach:
		return fmt.Sprintf("the source is on timeline %d, which left timeline %d at %s, before what was read", s.timeline, was, end)
	}
	return ""
}
