package outbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
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
	serving    *pgsession.Pool // the API and the commands
	publishing *pgsession.Pool
	sending    *pgsession.Pool
	upkeep     *pgsession.Pool // maintenance, measurements and health
	notifying  *pgsession.Pool // the notifier

	guard *pgsession.Guard // of all of them, and of the listening connection
}

const (
	servingConns    = 8
	publishingConns = 5 // an append, the inbox, a replay, a resync, a question
	sendingConns    = 8
	upkeepConns     = 4
	notifyingConns  = 1

	// servingTimeout bounds a statement that somebody waits for.
	servingTimeout = 5 * time.Second
)

func openPools(ctx context.Context, config Config, enc *encoding) (p pools, err error) {
	p.guard = &pgsession.Guard{}
	for _, one := range []struct {
		pool    **pgsession.Pool
		conns   int32
		grows   bool // by pool_max_conns of the URL, or with the processors
		timeout time.Duration
		unasked time.Duration // how long an idle connection passes for one that works
	}{
		{&p.serving, servingConns, false, servingTimeout, time.Second},
		{&p.publishing, publishingConns, false, statementTimeout, time.Second},
		// They look once a second when nothing happens, and try again what fails.
		{&p.sending, sendingConns, true, statementTimeout, 3 * time.Second},
		{&p.upkeep, upkeepConns, false, statementTimeout, time.Second},
		{&p.notifying, notifyingConns, false, servingTimeout, 3 * time.Second},
	} {
		if *one.pool, err = newPool(ctx, config, enc, p.guard, one.conns, one.grows, one.timeout, one.unasked); err != nil {
			p.close()
			return pools{}, err
		}
	}
	return p, nil
}

// pinned are the settings of every session on the outbox. A role or database that
// is read only stays so.
func pinned(timeout time.Duration) []pgsession.Setting {
	return append(pgsession.Common(),
		pgsession.Setting{Name: "statement_timeout", Value: milliseconds(timeout)},
		pgsession.Setting{Name: "idle_in_transaction_session_timeout", Value: milliseconds(statementTimeout)},
		pgsession.Setting{Name: "synchronous_commit", Value: "on"},
	)
}

// text is the URL as it is now: of a file, what it holds.
func (c Config) text() (string, error) {
	if c.URLNow == nil {
		return c.URL, nil
	}
	url, err := c.URLNow()
	if err != nil {
		return "", fmt.Errorf("read the URL of the outbox: %w", err)
	}
	return url, nil
}

// adapt makes a configuration of a URL one of ours.
func adapt(cfg *pgconn.Config, name string, settings []pgsession.Setting) error {
	if _, err := pgsession.Adapt(cfg); err != nil {
		return fmt.Errorf("outbox URL: %w", err)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	if cfg.ValidateConnect == nil {
		cfg.ValidateConnect = pgsession.RequirePrimary
	}
	pgsession.Use(cfg, name, settings)
	return nil
}

func newPool(ctx context.Context, config Config, enc *encoding, guard *pgsession.Guard, conns int32, grows bool, timeout, unasked time.Duration) (*pgsession.Pool, error) {
	cfg, err := pgxpool.ParseConfig(config.URL)
	if err != nil {
		return nil, fmt.Errorf("outbox URL: %w", err)
	}
	settings := pinned(timeout)
	if err := adapt(&cfg.ConnConfig.Config, applicationName, settings); err != nil {
		return nil, err
	}
	cfg.BeforeConnect = func(_ context.Context, conn *pgx.ConnConfig) error {
		fresh, err := config.session(conn, applicationName, settings)
		if err != nil {
			return err
		}
		*conn = *fresh
		return nil
	}
	cfg.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		enc.learn(conn)
		return nil
	}
	cfg.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool { return p.IdleDuration > unasked }
	if cfg.MaxConns = max(cfg.MaxConns, conns); !grows {
		cfg.MaxConns = conns
	}
	pool, err := pgsession.NewPool(ctx, cfg, guard)
	if err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	return pool, nil
}

// session is the configuration of a new connection. What was rotated counts for it, as
// it does for psql: a password in a passfile, a service file or the URL's own file, and
// certificates. It is the same database as the first one's all the same.
func (c Config) session(first *pgx.ConnConfig, name string, settings []pgsession.Setting) (*pgx.ConnConfig, error) {
	url, err := c.text()
	if err != nil {
		return nil, err
	}
	now, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("outbox URL: it is no longer a PostgreSQL URL")
	}
	if !sameDatabase(first, now.ConnConfig) {
		return nil, errors.New("outbox URL: it names another server or database than at the start: restart walhook to use it")
	}
	return now.ConnConfig, adapt(&now.ConnConfig.Config, name, settings)
}

// applicationName is what the server knows the pools' sessions by.
const applicationName = "walhook"

// sameDatabase says whether two configurations name the same hosts, in whatever
// order, and the same database.
func sameDatabase(a, b *pgx.ConnConfig) bool {
	hosts := func(c *pgx.ConnConfig) []string {
		all := []string{fmt.Sprint(c.Host, ":", c.Port)}
		for _, h := range c.Fallbacks {
			all = append(all, fmt.Sprint(h.Host, ":", h.Port))
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	return a.Database == b.Database && slices.Equal(hosts(a), hosts(b))
}

func milliseconds(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

func (p *pools) all() []*pgsession.Pool {
	return []*pgsession.Pool{p.serving, p.publishing, p.sending, p.upkeep, p.notifying}
}

func (p *pools) close() {
	for _, pool := range p.all() {
		if pool != nil {
			pool.Close()
		}
	}
}

// on is the same store over other connections.
func (s *Store) on(pool *pgsession.Pool) *Store {
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
		return errors.New("check whether the outbox answers: no connection was free in time")
	}
	return s.pools.upkeep.Ping(ctx)
}

// Classes of the server's error codes (PostgreSQL manual, PostgreSQL Error
// Codes).
const classData = "22"

// busyClasses are the codes that say that the same may succeed later.
var busyClasses = []string{
	"08",    // connection
	"25006", // a standby, or a server that is read-only
	"40",    // a deadlock
	"53",    // resources
	"55P03", // a lock
	"57",    // intervention, and so the end by statement_timeout
}

// IsBusy says that the outbox did not answer, or not in time: the same may
// succeed later.
func IsBusy(err error) bool {
	if _, unreachable := errors.AsType[*pgconn.ConnectError](err); unreachable || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		_, network := errors.AsType[net.Error](err)
		return network || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || pgconn.SafeToRetry(err)
	}
	return slices.ContainsFunc(busyClasses, func(class string) bool { return strings.HasPrefix(pgErr.Code, class) })
}

// codeUntranslatable is untranslatable_character.
const codeUntranslatable = "22P05"

// IsUnencodable says that a text has a character that the encoding of the outbox's
// database does not have.
func IsUnencodable(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == codeUntranslatable
}

// IsUnstorable says that the server cannot store a value: in its encoding there
// is no such character, or a number is out of range.
func IsUnstorable(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && strings.HasPrefix(pgErr.Code, classData)
}
