package pgsession

import (
	"context"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// Path is the search_path of walhook's sessions.
	Path = "pg_catalog, pg_temp"

	// carrierPath is that of the demo's and the benchmark's carrier, whose tables are in
	// public. The server searches pg_catalog first, although the path does not name it.
	carrierPath = "public, pg_temp"
)

// pin checks who answers, sets the session's search_path, and turns jit off: a query of the
// catalog is short, so compiling it costs more than running it. guard remembers poolers;
// with nil pin checks every time.
func pin(cfg *pgconn.Config, path string, guard *Guard) {
	if cfg.RuntimeParams == nil {
		cfg.RuntimeParams = map[string]string{}
	}
	settings := []Setting{{Name: "search_path", Value: path, List: true}, {Name: "jit", Value: "off"}}
	drop(cfg, settings)
	bare, next := *cfg, cfg.AfterConnect
	bare.RuntimeParams = maps.Clone(cfg.RuntimeParams)
	cfg.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		pooled, err := guard.look(ctx, conn, &bare)
		if err != nil {
			return err
		}
		if pooled {
			conn.CustomData()[pooledKey] = true
		}
		return answered(ctx, &bare, func(ctx context.Context) error {
			if err := Set(ctx, conn, settings); err != nil || next == nil {
				return err
			}
			return next(ctx, conn)
		})
	}
}

const pooledKey = "pooled"

// IsPooled reports whether a pooler is between a session and its server.
func IsPooled(conn *pgconn.PgConn) bool { return conn.CustomData()[pooledKey] != nil }

// Connect opens a session.
func Connect(ctx context.Context, url string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	return ConnectConfig(ctx, cfg)
}

// ConnectConfig opens a session; cfg is only used once.
func ConnectConfig(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	return connect(ctx, cfg, nil)
}

func connect(ctx context.Context, cfg *pgx.ConnConfig, guard *Guard) (*pgx.Conn, error) {
	pin(&cfg.Config, Path, guard)
	conn, err := pgx.ConnectConfig(ctx, cfg)
	return conn, Reason(err)
}

// Close ends a session. One that a pooler keeps for its next client is left as it was
// found, whether the pooler resets it or not. Close takes a second at most.
func Close(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	reset(ctx, conn)
	_ = conn.Close(ctx)
}

// reset gives up all that walhook has set in a session that a pooler keeps.
func reset(ctx context.Context, conn *pgx.Conn) {
	if !IsPooled(conn.PgConn()) || conn.IsClosed() {
		return
	}
	if conn.PgConn().TxStatus() != 'I' {
		_, _ = conn.PgConn().Exec(ctx, "ROLLBACK").ReadAll()
	}
	_, _ = conn.PgConn().Exec(ctx, "DISCARD ALL").ReadAll()
}

// ConnectListener opens a session that keeps state which its caller cannot check, such as
// the channels that it listens on: before it returns, it also finds out a pooler that
// passes on the process ids of the server and lends sessions per transaction, which is a
// [*PoolerError]. cfg is only used once.
func ConnectListener(ctx context.Context, cfg *pgx.ConnConfig, guard *Guard) (*pgx.Conn, error) {
	bare := cfg.Config
	bare.RuntimeParams = maps.Clone(cfg.RuntimeParams)
	conn, err := connect(ctx, cfg, guard)
	if err != nil {
		return nil, err
	}
	if err := requireOwnSession(ctx, conn.PgConn(), &bare); err != nil {
		Close(ctx, conn)
		return nil, err
	}
	return conn, nil
}

// ConnectStream opens a session of the replication protocol; cfg is only used
// once.
func ConnectStream(ctx context.Context, cfg *pgconn.Config) (*pgconn.PgConn, error) {
	cfg.RuntimeParams["replication"] = "database"
	pin(cfg, Path, nil)
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	return conn, Reason(err)
}

// NewPool opens a pool of sessions; cfg is only used once. Its BeforeConnect may
// put another configuration in place of the pool's.
func NewPool(ctx context.Context, cfg *pgxpool.Config, guard *Guard) (*Pool, error) {
	before := cfg.BeforeConnect
	cfg.BeforeConnect = func(ctx context.Context, conn *pgx.ConnConfig) error {
		if before != nil {
			if err := before(ctx, conn); err != nil {
				return err
			}
		}
		pin(&conn.Config, Path, guard)
		return nil
	}
	cfg.BeforeClose = func(conn *pgx.Conn) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		reset(ctx, conn)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &Pool{pool}, nil
}

// ConnectCarrier opens a session like those of the carrier's own software.
func ConnectCarrier(ctx context.Context, url string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	pin(&cfg.Config, carrierPath, nil)
	return pgx.ConnectConfig(ctx, cfg)
}

// NewCarrierPool opens a pool of sessions like those of [ConnectCarrier]; cfg is only used
// once.
func NewCarrierPool(ctx context.Context, cfg *pgxpool.Config) (*pgxpool.Pool, error) {
	pin(&cfg.ConnConfig.Config, carrierPath, nil)
	return pgxpool.NewWithConfig(ctx, cfg)
}
