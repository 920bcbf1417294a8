package cdc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/internal/pgsession"
)

// pinned are the settings that values are printed under. A role or database
// with others (datestyle=German, extra_float_digits=0) would change every
// receiver's payload.
func pinned() map[string]string {
	return map[string]string{
		"client_encoding":    "UTF8",
		"DateStyle":          "ISO, MDY",
		"IntervalStyle":      "postgres",
		"TimeZone":           "UTC",
		"extra_float_digits": "3",
		"bytea_output":       "hex",
		"application_name":   applicationName,
		// A statement of ours on the source may take as long as it takes,
		// making a slot above all; what bounds it is the caller's context.
		"statement_timeout":                   "0",
		"lock_timeout":                        "0",
		"idle_in_transaction_session_timeout": "0",
		"default_transaction_read_only":       "off",
		// Rather refused than given a part of the rows.
		"row_security": "off",
	}
}

const connectTimeout = 10 * time.Second

func (c Config) connConfig() (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(c.URL)
	if err != nil {
		return nil, &Fault{Problem: "--source is no Postgres URL", Mend: "want postgres://user@host:5432/database", Err: redact(err)}
	}
	maps.Copy(cfg.RuntimeParams, pinned())
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	// Of several hosts whichever is primary; a single one that is not may be
	// on its way there, and what it lacks until then is no gap.
	cfg.ValidateConnect = requirePrimary
	cfg.AfterConnect = settle
	return cfg, nil
}

// settle undoes the limits that a role or database may have and that only some
// of the servers know, so that they cannot be pinned on connecting.
func settle(ctx context.Context, conn *pgconn.PgConn) error {
	sql := ""
	if serverEncoding(conn) == sqlASCII {
		sql += "SET client_encoding = 'SQL_ASCII';"
	}
	if serverMajor(conn) >= 14 {
		sql += "SET idle_session_timeout = 0;"
	}
	if serverMajor(conn) >= 17 {
		sql += "SET transaction_timeout = 0;"
	}
	_, err := conn.Exec(ctx, sql).ReadAll()
	return err
}

// requirePrimary turns down a standby. The server reports the setting by itself
// (PostgreSQL 14 and newer), so no query is needed, which a walsender would
// not speak the protocol of.
func requirePrimary(_ context.Context, conn *pgconn.PgConn) error {
	if conn.ParameterStatus("in_hot_standby") == "on" {
		return errors.New("the server is a standby")
	}
	return nil
}

// redact keeps the reason of a parse error and drops what was parsed, which
// may hold a password.
func redact(err error) error {
	return fmt.Errorf("%T", err)
}

// connect opens an ordinary session on the source.
func (c Config) connect(ctx context.Context) (*pgx.Conn, error) {
	cfg, err := c.connConfig()
	if err != nil {
		return nil, err
	}
	conn, err := pgsession.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, connectFault(err)
	}
	return conn, nil
}

// connectReplication opens a session of the replication protocol.
func (c Config) connectReplication(ctx context.Context) (*pgconn.PgConn, error) {
	conn, _, err := c.connectStream(ctx)
	return conn, err
}

// connectStream opens a session of the replication protocol on which no change
// takes more memory than MaxMessageBytes. arrived counts the server's bytes, so
// that one who sends a long message is not taken for silent.
func (c Config) connectStream(ctx context.Context) (conn *pgconn.PgConn, arrived *atomic.Uint64, err error) {
	cfg, err := c.connConfig()
	if err != nil {
		return nil, nil, err
	}
	cfg.RuntimeParams["replication"] = "database"
	arrived = new(atomic.Uint64)
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(&shortener{src: r, limit: c.maxMessageBytes(), arrived: arrived}, w)
	}
	conn, err = pgsession.ConnectStream(ctx, &cfg.Config)
	if err != nil {
		return nil, nil, connectFault(err)
	}
	return conn, arrived, nil
}

// closeConn says goodbye within a second; the session is over either way.
func closeConn(ctx context.Context, conn interface{ Close(context.Context) error }) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}
