package cdc

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/internal/pgsession"
)

// pinned are the settings of every session on the source. A role or database
// with others (datestyle=German, extra_float_digits=0) would change every
// receiver's payload.
func pinned() []pgsession.Setting {
	return append(pgsession.Common(),
		// A statement of ours on the source may take as long as it takes,
		// making a slot above all; what bounds it is the caller's context.
		pgsession.Setting{Name: "statement_timeout", Value: "0"},
		pgsession.Setting{Name: "idle_in_transaction_session_timeout", Value: "0"},
		pgsession.Setting{Name: "default_transaction_read_only", Value: "off"},
	)
}

const connectTimeout = 10 * time.Second

// parse reads the URL as it is now: of a file, what it holds.
func (c Config) parse() (*pgx.ConnConfig, error) {
	url := c.URL
	if c.URLNow != nil {
		now, err := c.URLNow()
		if err != nil {
			return nil, fmt.Errorf("read the URL of the source: %w", err)
		}
		url = now
	}
	cfg, err := pgx.ParseConfig(url)
	if err == nil {
		_, err = pgsession.Adapt(&cfg.Config)
	}
	if err != nil {
		return nil, &Fault{Problem: "--source is no Postgres URL", Mend: "want postgres://user@host:5432/database", Err: redact(err)}
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	// Of several hosts whichever is primary; a single one that is not may be
	// on its way there, and what it lacks until then is no gap.
	cfg.ValidateConnect = pgsession.RequirePrimary
	return cfg, nil
}

func (c Config) connConfig() (*pgx.ConnConfig, error) {
	cfg, err := c.parse()
	if err != nil {
		return nil, err
	}
	pgsession.Use(&cfg.Config, applicationName, pinned())
	prepare := cfg.AfterConnect
	cfg.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if err := prepare(ctx, conn); err != nil || serverEncoding(conn) != sqlASCII {
			return err
		}
		return pgsession.Set(ctx, conn, []pgsession.Setting{{Name: "client_encoding", Value: sqlASCII}})
	}
	return cfg, nil
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
