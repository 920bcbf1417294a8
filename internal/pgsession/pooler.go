package pgsession

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// PoolerError says that a connection pooler is in front of the server and that the session
// does not work through it.
type PoolerError struct {
	Reason string
	Err    error // what it said, if anything
}

func (e *PoolerError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s (%v)", e.Reason, e.Err)
	}
	return e.Reason
}

// Unwrap returns what the pooler said.
func (e *PoolerError) Unwrap() error { return e.Err }

// PoolerFix says how to fix a [PoolerError].
const PoolerFix = "give the address of the PostgreSQL server itself, or for the outbox a pool with pool_mode = session; see \"Connection poolers\" in docs/OPERATIONS.md"

const (
	lendsSessions = "a connection pooler in transaction mode answers: settings, locks and prepared statements would be lost, or reach other clients"
	// NoReplication is why a source cannot be read.
	NoReplication = "a connection pooler answers that does not support replication connections"
)

// Guard remembers which addresses are poolers that keep a session for each client, so that
// not every connection needs a second one to find out. All connections to one database
// share it. Its zero value knows none; a nil Guard remembers none. It is safe for
// concurrent use.
type Guard struct {
	mu   sync.Mutex
	kept map[string]time.Time // by address: until when the result is valid
}

const (
	keptFor = 10 * time.Minute
	// probeTimeout bounds the second connection of a look, and how long a look waits for
	// its turn.
	probeTimeout = 15 * time.Second
)

// answered bounds a call that waits for the first answers of a connection: a pooler lets a
// client log in and then has it wait for a session, without end if it is told so.
func answered(ctx context.Context, cfg *pgconn.Config, call func(context.Context) error) error {
	limit := cfg.ConnectTimeout
	if limit <= 0 {
		limit = probeTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf(
		"it accepts the connection and answers no query within %s: if a connection pooler is in between, check whether its pool is exhausted", limit))
	defer cancel()
	return cause(ctx, call(ctx))
}

// look finds out who answers. It is a pooler if the process id of the startup answer is
// not that of the backend. look returns a [*PoolerError] if the pooler keeps no session
// per client. It sets nothing before it knows that, since a pooler may lend the session to
// other clients.
func (g *Guard) look(ctx context.Context, conn *pgconn.PgConn, cfg *pgconn.Config) (pooled bool, err error) {
	var pid uint32
	err = answered(ctx, cfg, func(ctx context.Context) (err error) {
		pid, err = serverProcess(ctx, conn)
		return err
	})
	pooled = err == nil && pid != conn.PID()
	if err != nil || !pooled {
		return pooled, err
	}
	if cfg.RuntimeParams["replication"] != "" {
		if _, err := conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll(); State(err) == codeSyntax {
			return true, &PoolerError{Reason: NoReplication} // it dropped the parameter, and an ordinary session answers
		}
		return true, nil
	}
	address := conn.Conn().RemoteAddr().String()
	if g.knows(address) {
		return true, nil
	}
	done, err := takeTurn(ctx)
	if err != nil {
		return true, err
	}
	defer done()
	if g.knows(address) { // since the look before this one
		return true, nil
	}
	shared, err := isShared(ctx, conn, cfg, pid)
	switch {
	case err != nil:
		return true, fmt.Errorf("find out the connection pooler's mode: %w", err)
	case shared:
		return true, &PoolerError{Reason: lendsSessions}
	}
	g.learn(address)
	return true, nil
}

// looks is how often isShared compares: a pooler may hand out the same one of
// several sessions twice.
const looks = 3

// requireOwnSession returns a [*PoolerError] if a session is lent per transaction, although
// the process ids say that the server itself answers. If the server sees the port that
// the connection has here, nothing is in between.
func requireOwnSession(ctx context.Context, conn *pgconn.PgConn, cfg *pgconn.Config) error {
	if IsPooled(conn) {
		return nil // look has compared
	}
	value, err := ask(ctx, conn, "SELECT pg_catalog.inet_client_port()")
	if err != nil {
		return fmt.Errorf("read the port that the server sees: %w", err)
	}
	if local, ok := conn.Conn().LocalAddr().(*net.TCPAddr); ok && value == strconv.Itoa(local.Port) {
		return nil
	}
	done, err := takeTurn(ctx)
	if err != nil {
		return err
	}
	defer done()
	shared, err := isShared(ctx, conn, cfg, conn.PID())
	if err != nil {
		return fmt.Errorf("find out whether a connection pooler lends the session: %w", err)
	}
	if shared {
		return &PoolerError{Reason: lendsSessions}
	}
	return nil
}

func (g *Guard) knows(address string) bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().Before(g.kept[address])
}

func (g *Guard) learn(address string) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.kept == nil {
		g.kept = map[string]time.Time{}
	}
	g.kept[address] = time.Now().Add(keptFor)
}

// turn lets one look compare at a time: a pooler that lends sessions per transaction
// would give another look the session that this one waits to see again.
var turn = make(chan struct{}, 1)

// takeTurn waits until no other look compares.
func takeTurn(ctx context.Context) (done func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, errors.New("other connections of this process still find out the connection pooler's mode"))
	defer cancel()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// isShared reports whether two connections of ours get the same session of the server, or
// one connection changes its session. For that the second one opens a transaction while
// the first one is idle. Neither sets anything. It compares several times, since other
// clients may take the session in between. The caller has the turn.
func isShared(ctx context.Context, conn *pgconn.PgConn, cfg *pgconn.Config, pid uint32) (shared bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, errors.New("no second session in time: check whether its pool is exhausted"))
	defer cancel()
	other, err := second(ctx, conn, cfg)
	if err != nil {
		return false, cause(ctx, err)
	}
	defer end(ctx, other)
	moved := func(conn *pgconn.PgConn, from uint32) (bool, error) {
		now, err := serverProcess(ctx, conn)
		return err == nil && now != from, cause(ctx, err)
	}
	var theirs uint32
	for i := range looks {
		if _, err := other.Exec(ctx, "BEGIN").ReadAll(); err != nil {
			if State(err) != "" {
				return hasNoTransactions(ctx, conn, cfg)
			}
			return false, cause(ctx, err)
		}
		before := theirs
		if theirs, err = serverProcess(ctx, other); err != nil || theirs == pid || i > 0 && theirs != before {
			return err == nil, cause(ctx, err)
		}
		if shared, err := moved(conn, pid); shared || err != nil {
			return shared, err
		}
		if _, err := other.Exec(ctx, "ROLLBACK").ReadAll(); err != nil {
			return false, cause(ctx, err)
		}
		// A pooler lends first what it got back last, or what it has had the longest. So it
		// lends this connection the other one's session now, or after the next answer; then
		// it has this one's session last.
		for range 2 {
			if shared, err := moved(conn, pid); shared || err != nil {
				return shared, err
			}
		}
	}
	return false, nil
}

// hasNoTransactions tells why a pooler refused one: it allows none, or it has no session
// for a second connection, which is a [*fullError].
func hasNoTransactions(ctx context.Context, conn *pgconn.PgConn, cfg *pgconn.Config) (bool, error) {
	other, err := second(ctx, conn, cfg)
	if err == nil {
		defer end(ctx, other)
		_, err = serverProcess(ctx, other)
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return false, &fullError{pgErr}
	}
	return err == nil, cause(ctx, err)
}

// second connects to where conn is connected.
func second(ctx context.Context, conn *pgconn.PgConn, cfg *pgconn.Config) (*pgconn.PgConn, error) {
	peer := conn.Conn().RemoteAddr()
	second := *cfg
	second.RuntimeParams = maps.Clone(cfg.RuntimeParams)
	second.AfterConnect, second.ValidateConnect, second.Fallbacks = nil, nil, nil
	second.TLSConfig = nil
	if _, secured := conn.Conn().(*tls.Conn); secured {
		for _, h := range hostsOf(cfg) {
			if second.TLSConfig == nil {
				second.TLSConfig = h.TLSConfig
			}
		}
	}
	second.LookupFunc = func(context.Context, string) ([]string, error) { return []string{peer.String()}, nil }
	second.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, peer.Network(), peer.String())
	}
	return pgconn.ConnectConfig(ctx, &second)
}

// end closes a second connection within a second.
func end(ctx context.Context, other *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if other.TxStatus() == 'T' {
		_, _ = other.Exec(ctx, "ROLLBACK").ReadAll()
	}
	_ = other.Close(ctx)
}

// fullError says that a pooler has no second session.
type fullError struct{ said *pgconn.PgError }

func (e *fullError) Error() string {
	return "no second session from the connection pooler: check whether its pool is exhausted (" + e.said.Message + ")"
}
func (e *fullError) Unwrap() error { return e.said }

func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// serverProcess asks for the number of the process that answers.
func serverProcess(ctx context.Context, conn *pgconn.PgConn) (uint32, error) {
	value, err := ask(ctx, conn, "SELECT pg_catalog.pg_backend_pid()")
	if err != nil {
		return 0, fmt.Errorf("read the backend's pid: %w", err)
	}
	pid, err := strconv.ParseUint(value, 10, 32)
	return uint32(pid), err
}

// ask reads one value; "" for null.
func ask(ctx context.Context, conn *pgconn.PgConn, sql string) (string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1 {
		return "", errors.New("the server did not answer with one value")
	}
	return string(results[0].Rows[0][0]), nil
}
