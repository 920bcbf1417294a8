package pgsession

import (
	"context"
	"maps"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// Path is the search_path of a session of walhook's.
	Path = "pg_catalog, pg_temp"

	// carrierPath is that of the demo's and the benchmark's carrier, whose tables
	// are in public. What is not named in it comes first: pg_catalog.
	carrierPath = "public, pg_temp"
)

// pin settles how the names of a session are found. A query of the catalog is
// short: compiling it costs more than running it.
func pin(cfg *pgconn.Config, path string) {
	if cfg.RuntimeParams == nil {
		cfg.RuntimeParams = map[string]string{}
	}
	// The server takes a name in any case, and a URL may have it in another.
	maps.DeleteFunc(cfg.RuntimeParams, func(name, _ string) bool {
		return strings.EqualFold(name, "search_path") || strings.EqualFold(name, "jit")
	})
	cfg.RuntimeParams["search_path"] = path
	cfg.RuntimeParams["jit"] = "off"
	next := cfg.AfterConnect
	cfg.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if _, err := conn.Exec(ctx, "SET search_path = "+path+"; SET jit = off").ReadAll(); err != nil || next == nil {
			return err
		}
		return next(ctx, conn)
	}
}

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
	pin(&cfg.Config, Path)
	return pgx.ConnectConfig(ctx, cfg)
}

// ConnectStream opens a session of the replication protocol; cfg is only used
// once.
func ConnectStream(ctx context.Context, cfg *pgconn.Config) (*pgconn.PgConn, error) {
	pin(cfg, Path)
	return pgconn.ConnectConfig(ctx, cfg)
}

// NewPool opens a pool of sessions; cfg is only used once.
func NewPool(ctx context.Context, cfg *pgxpool.Config) (*pgxpool.Pool, error) {
	pin(&cfg.ConnConfig.Config, Path)
	return pgxpool.NewWithConfig(ctx, cfg)
}

// ConnectCarrier opens a session as the carrier's own software has it.
func ConnectCarrier(ctx context.Context, url string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	pin(&cfg.Config, carrierPath)
	return pgx.ConnectConfig(ctx, cfg)
}

// NewCarrierPool is a pool of what [ConnectCarrier] opens; cfg is only used once.
func NewCarrierPool(ctx context.Context, cfg *pgxpool.Config) (*pgxpool.Pool, error) {
	pin(&cfg.ConnConfig.Config, carrierPath)
	return pgxpool.NewWithConfig(ctx, cfg)
}
