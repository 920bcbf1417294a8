package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"walhook/internal/pgsession"
)

// pools are the connections of a process, apart by who waits for whom: the
// publisher, the senders and maintenance never queue behind a caller of the API.
// A pool opens connections as they are needed, so an unused one costs none.
type pools struct {
	serving    *pgxpool.Pool // the API and the commands
	publishing *pgxpool.Pool
	sending    *pgxpool.Pool
	upkeep     *pgxpool.Pool // maintenance, measurements and health
}

const (
	servingConns    = 8
	publishingConns = 4 // an append, the inbox, a replay, a question
	sendingConns    = 8
	upkeepConns     = 4

	// servingTimeout bounds a statement that somebody waits for.
	servingTimeout = 5 * time.Second
)

func openPools(ctx context.Context, url string, enc *encoding) (p pools, err error) {
	for _, one := range []struct {
		pool    **pgxpool.Pool
		conns   int32
		grows   bool // by pool_max_conns of the URL, or with the processors
		timeout time.Duration
	}{
		{&p.serving, servingConns, false, servingTimeout},
		{&p.publishing, publishingConns, false, statementTimeout},
		{&p.sending, sendingConns, true, statementTimeout},
		{&p.upkeep, upkeepConns, false, statementTimeout},
	} {
		if *one.pool, err = newPool(ctx, url, enc, one.conns, one.grows, one.timeout); err != nil {
			p.close()
			return pools{}, err
		}
	}
	return p, nil
}

func newPool(ctx context.Context, url string, enc *encoding, conns int32, grows bool, timeout time.Duration) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("outbox URL: %w", err)
	}
	set := cfg.ConnConfig.RuntimeParams
	set["application_name"] = "walhook"
	set["statement_timeout"] = milliseconds(timeout)
	set["idle_in_transaction_session_timeout"] = milliseconds(statementTimeout)
	set["synchronous_commit"] = "on"
	set["timezone"] = "UTC"
	set["client_encoding"] = "UTF8"
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = 10 * time.Second
	}
	// A password that was rotated in the passfile or the service file counts for
	// the next connection, as it does for psql.
	cfg.BeforeConnect = func(_ context.Context, conn *pgx.ConnConfig) error {
		now, err := pgx.ParseConfig(url)
		if err != nil {
			return fmt.Errorf("outbox URL: %w", err)
		}
		conn.Password = now.Password
		return nil
	}
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		enc.learn(conn)
		return nil
	}
	if cfg.MaxConns = max(cfg.MaxConns, conns); !grows {
		cfg.MaxConns = conns
	}
	pool, err := pgsession.NewPool(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	return pool, nil
}

func milliseconds(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

func (p *pools) all() []*pgxpool.Pool {
	return []*pgxpool.Pool{p.serving, p.publishing, p.sending, p.upkeep}
}

func (p *pools) close() {
	for _, pool := range p.all() {
		if pool != nil {
			pool.Close()
		}
	}
}

// on is the same store over other connections.
func (s *Store) on(pool *pgxpool.Pool) *Store {
	view := *s
	view.pool = pool
	return &view
}

// Ping says whether the outbox answers. Callers take turns: anybody may ask for
// /readyz, as often as they like.
func (s *Store) Ping(ctx context.Context) error {
	select {
	case s.pinging <- struct{}{}:
		defer func() { <-s.pinging }()
	case <-ctx.Done():
		return errors.New("ask whether the outbox answers: no turn in time")
	}
	return s.pools.upkeep.Ping(ctx)
}

// Classes of the server's error codes (PostgreSQL manual, PostgreSQL Error
// Codes).
const (
	classConnection = "08"
	classResources  = "53"
	classData       = "22"
	classOperator   = "57" // intervention, and so the end by statement_timeout
)

// IsBusy says that the outbox did not answer, or not in time: the same may
// succeed later.
func IsBusy(err error) bool {
	if _, unreachable := errors.AsType[*pgconn.ConnectError](err); unreachable || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains([]string{classConnection, classResources, classOperator}, pgErr.Code[:2])
}

// IsUnstorable says that the server cannot store a value: in its encoding there
// is no such character, or a number is out of range.
func IsUnstorable(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code[:2] == classData
}
