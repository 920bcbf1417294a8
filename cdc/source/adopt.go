package source

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Moment is a position of the source's WAL and the state of the source at it: all that
// committed before the position, and nothing else.
type Moment struct {
	Point    schemas.LSN
	conn     *pgconn.PgConn // its temporary slot exports the snapshot
	snapshot string
}

// NewMoment creates a temporary slot, whose consistent point is the position and whose
// exported snapshot is the state (PostgreSQL manual, Streaming Replication Protocol,
// CREATE_REPLICATION_SLOT). That waits for the transactions that run; NewMoment logs
// them. The slot goes with Close.
func NewMoment(ctx context.Context, cfg Config, log *zap.Logger) (*Moment, error) {
	return NewMomentTelling(ctx, cfg, logBlockers(cfg, log))
}

// NewMomentTelling is NewMoment that tells tell, and no log, of the transactions that it
// waits for, every few seconds.
func NewMomentTelling(ctx context.Context, cfg Config, tell func(blockers string)) (*Moment, error) {
	cfg = cfg.WithDefaults()
	source, err := NewIntrospector(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer source.Close(ctx)
	conn, err := cfg.connectReplication(ctx)
	if err != nil {
		return nil, err
	}
	name := "walhook_moment_" + strings.ToLower(rand.Text()[:16])
	sql := fmt.Sprintf("CREATE_REPLICATION_SLOT %s TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT", schemas.QuoteIdent(name))
	point, snapshot, err := createSlot(ctx, cfg, conn, source, sql, tell)
	if err != nil {
		CloseConn(ctx, conn)
		return nil, err
	}
	return &Moment{point, conn, snapshot}, nil
}

// Close drops the temporary slot, and with it the snapshot.
func (m *Moment) Close(ctx context.Context) { CloseConn(ctx, m.conn) }

// Read writes to sink what a changed catalog needs of the source's rows. cfg has the new
// catalog.
func (m *Moment) Read(ctx context.Context, cfg Config, only catalog.Difference, sink catalog.SnapshotSink, log *zap.Logger) error {
	load := snapshotLoad{cfg: cfg.WithDefaults(), log: log, progress: time.Now(), sink: sink, point: m.Point, only: &only}
	return load.read(ctx, m.snapshot)
}

// Unpublished returns the tables of the catalog of cfg that exist and that the publication
// does not hold.
func (r *Introspector) Unpublished(ctx context.Context, cfg Config) ([]schemas.TableName, error) {
	_, unpublished, err := r.loggedTables(ctx, cfg.WithDefaults())
	return unpublished, err
}
