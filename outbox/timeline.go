package outbox

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"
)

// A server that is promoted may lack the newest commits of the one before it. It then
// gives ids, revisions and versions a second time, for other things. So what a process
// keeps in memory counts on the timeline alone that it was read on. A publisher notes its
// timeline when it takes over, and a sender when it joins; their fences refuse every write
// on another one with [ErrMoved], and both then read everything anew.

// ErrMoved says that the outbox is on another timeline than the one that this process has
// read: its server failed over to a standby, or was restored. Nothing is stored.
var ErrMoved = errors.New("the outbox failed over, or was restored: what was read of it is read again")

// timeline is a history of the outbox, as one process knows it.
type timeline struct {
	token string
	// firstEvent is the least id that is given to an event on it.
	firstEvent int64
}

// The mark of a timeline is short, for cursors of feeds: the first eight hexadecimal digits
// of its token's MD5.
const timelineMarkSQL = `left(md5(token), 8)`

func timelineMark(token string) string {
	sum := md5.Sum([]byte(token))
	return hex.EncodeToString(sum[:4])
}

const noteTimelineSQL = `SELECT token, first_event, noted, coalesce(before, ''), present FROM walhook.note_timeline()`

// noteTimeline says which timeline the outbox is on. Whoever meets one first notes it.
func (s *Store) noteTimeline(ctx context.Context) (t timeline, err error) {
	var noted bool
	var before, present string
	if err := s.pool.QueryRow(ctx, noteTimelineSQL).Scan(&t.token, &t.firstEvent, &noted, &before, &present); err != nil {
		return t, fmt.Errorf("read the timeline of the outbox: %w", err)
	}
	if noted {
		s.log.Warn("the outbox failed over, or was restored: changes of webhooks, endpoints and replays made in the seconds before may be lost; check those, see 'walhook status'",
			zap.String("timeline", present), zap.String("before", before))
	}
	return t, nil
}

const beginsTimelineSQL = `SELECT walhook.begins_timeline($1)`

// codeUndefinedFunction is undefined_function.
const codeUndefinedFunction = "42883"

// beginsTimeline says whether nothing was stored after a position since the outbox came to
// its present timeline; false for an outbox that setup has not been run for since.
func (s *Store) beginsTimeline(ctx context.Context, position int64) (begins bool, err error) {
	err = s.pool.QueryRow(ctx, beginsTimelineSQL, position).Scan(&begins)
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == codeUndefinedFunction {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read whether the outbox failed over: %w", err)
	}
	return begins, nil
}

// LastFailoverSQL is when walhook first met the present timeline, where it followed another
// one, and its number.
const LastFailoverSQL = `
	SELECT t.noted_at, t.number FROM walhook.timeline t
	WHERE EXISTS (SELECT FROM walhook.timeline o WHERE o.id < t.id) ORDER BY t.id DESC LIMIT 1`
