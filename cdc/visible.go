package cdc

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A server streams a transaction once its commit record is written, and shows it
// to others a moment later: in between it waits for synchronous standbys. Who
// asks the catalog in that moment sees the tables as they were before the
// transaction. So the reader waits until the catalog shows it; where a standby
// keeps that for long, it goes on.
const (
	visibleWait  = 2 * time.Second
	visibleEvery = time.Millisecond
)

const snapshotSQL = `SELECT pg_catalog.pg_current_snapshot()::text`

// snapshot is what a query sees.
type snapshot struct {
	next    uint32 // the first transaction that has not begun
	running []uint32
}

// parseSnapshot reads pg_snapshot's text, such as 10:20:10,14. Its ids are 64
// bits wide, those of the stream are the lower half.
func parseSnapshot(text string) (s snapshot, err error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return s, fmt.Errorf("snapshot %q is malformed", text)
	}
	ids := parts[1:2]
	if parts[2] != "" {
		ids = append(ids, strings.Split(parts[2], ",")...)
	}
	for i, id := range ids {
		xid, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			return s, fmt.Errorf("snapshot %q is malformed: %w", text, err)
		}
		if i == 0 {
			s.next = uint32(xid)
		} else {
			s.running = append(s.running, uint32(xid))
		}
	}
	return s, nil
}

// shows says whether the snapshot shows a transaction that has committed. Ids
// wrap around.
func (s snapshot) shows(xid uint32) bool {
	return int32(xid-s.next) < 0 && !slices.Contains(s.running, xid)
}

// shows says whether the catalog shows a transaction that has committed.
func (r *catalogReader) shows(ctx context.Context, xid uint32) (bool, error) {
	var text string
	if err := r.conn.QueryRow(ctx, snapshotSQL).Scan(&text); err != nil {
		return false, fmt.Errorf("look what the catalog shows: %w", err)
	}
	seen, err := parseSnapshot(text)
	return seen.shows(xid), err
}

// untilVisible asks the catalog until it shows the transaction that is being
// read. It is false where that takes too long, which costs a transaction one
// wait.
func (s *stream) untilVisible(ctx context.Context, ask func() (visible bool, err error)) (bool, error) {
	for began := time.Now(); ; {
		if visible, err := ask(); visible || err != nil {
			return visible, err
		}
		if s.invisible == s.tx.commit || time.Since(began) >= visibleWait || !sleep(ctx, visibleEvery) {
			s.invisible = s.tx.commit
			return false, ctx.Err()
		}
	}
}
