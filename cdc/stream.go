package cdc

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

// catalogNow is the source's catalog as it is now; [catalogReader] outside of
// tests.
type catalogNow interface {
	describe(ctx context.Context, oid uint32) (*catalog.TableDescription, error)
	describeTypes(ctx context.Context, relation *schemas.Relation, kept keptTypes) (fluid *fluidTypes, err error)
	typesVersion(ctx context.Context, rows []pgjson.TypeRow) (version string, seen snapshot, err error)
	shows(ctx context.Context, xid uint32) (bool, error)
}

// stream is what one connection receives. The receiver's fields belong to the
// goroutine of receive; the appender shares only pending and flushed.
type stream struct {
	r       *Reader
	conn    *pgconn.PgConn
	arrived *atomic.Uint64 // bytes that the server sent
	source  catalogNow
	pending *pending
	flushed atomic.Uint64 // stored; what the server may be told

	progress bool // changes were stored; the appender's until it ends

	resume        schemas.Checkpoint
	expect        bool // the transaction that resume lies in is still to come
	history       *history
	relations     map[uint32]*schemas.Relation
	dropsDefaults bool                                          // of the server
	described     uint32                                        // the relation described last, until a change
	partitions    map[uint32]*partitions                        // of tables that are published under their own names
	missing       map[uint32]map[string]catalog.DescribedColumn // of relations whose old rows may lack defaults
	fluid         map[uint32]*fluidTypes                        // of relations that have composite columns
	arena         arena
	inTx          bool
	skip          bool  // the whole transaction is stored
	skipUpto      int64 // ordinals of the transaction that are stored
	tx            begin
	invisible     schemas.LSN // the transaction that the catalog did not show in time
	ordinal       int64
	encoding      string          // of the server
	illegible     map[string]bool // columns whose values were not UTF-8
	convert       func(context.Context, []byte) (string, error)
	size          int             // of a change that was shortened; 0 for one that was not
	held          *schemas.Change // a delete whose row may have moved
	chunk         []schemas.Change
	chunkStart    int // arena.size when the chunk began
	position      schemas.Position
	xid           uint32
	flush         schemas.LSN
	idleStored    time.Time
	lastStatus    time.Time
	nextStatus    time.Time
}

func newStream(r *Reader, conn *pgconn.PgConn, source *catalogReader, history *history, c schemas.Checkpoint, confirmed schemas.LSN) *stream {
	s := &stream{
		r: r, conn: conn, source: source, dropsDefaults: source.dropsDefaults, pending: newPending(),
		resume: c, position: c.Position, xid: c.Xid, flush: c.Flush,
		history: history, partitions: map[uint32]*partitions{}, missing: map[uint32]map[string]catalog.DescribedColumn{},
		relations: map[uint32]*schemas.Relation{}, fluid: map[uint32]*fluidTypes{},
		// The server sends what was committed at confirmed or later.
		expect: c.Position.Ordinal > 0 && c.Position.Commit >= confirmed,
	}
	s.flushed.Store(uint64(c.Flush))
	s.pending.batch = schemas.Batch{Position: c.Position, Xid: c.Xid, Flush: c.Flush, NoMessages: r.noMessages}
	return s
}

// append stores batch after batch. Only then is the source told.
func (s *stream) append(ctx context.Context) error {
	for {
		batch, err := s.pending.take(ctx)
		if err != nil {
			return err
		}
		taken := time.Now()
		if err := s.r.store.Append(ctx, batch); err != nil {
			return err
		}
		s.progress = s.progress || batch.Position != s.resume.Position
		s.flushed.Store(uint64(batch.Flush))
		s.r.checkSkip(batch.Flush, 0)
		s.r.metrics.stored(batch, taken, s.pending.waiting())
		s.pending.done(batch)
	}
}
