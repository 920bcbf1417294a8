package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/internal/pgsession"
)

// Config says where the outbox is and what it keeps.
type Config struct {
	// URL of the database that the outbox lives in. Required.
	URL string
	// URLNow reads the URL again for each connection, of a file where a password
	// may be rotated; nil for URL. The database stays the one of URL.
	URLNow func() (string, error)
	// Retention is how long events, attempts and dead letters are kept;
	// zero means 168h.
	Retention time.Duration
	// MaxEventBytes bounds a body; a larger one becomes a dead letter
	// "too_large". Zero means 16 MiB.
	MaxEventBytes int
	// SecretKey encrypts the endpoints' secrets at rest: 32 bytes. Empty
	// means that they are stored as they are.
	SecretKey []byte
}

const (
	defaultRetention     = 7 * 24 * time.Hour
	defaultMaxEventBytes = 16 << 20

	// statementTimeout is well below a sender's lease, so that whoever
	// freezes inside a transaction lets go of its fence before others need it.
	statementTimeout = 8 * time.Second
)

// Validate lists everything that is wrong with c.
func (c Config) Validate() error {
	var faults []error
	if c.URL == "" {
		faults = append(faults, errors.New("outbox URL is empty"))
	}
	if c.Retention < 0 || (c.Retention > 0 && c.Retention < time.Hour) {
		faults = append(faults, fmt.Errorf("retention %s: want 1h or more", c.Retention))
	}
	if c.MaxEventBytes < 0 || (c.MaxEventBytes > 0 && c.MaxEventBytes < 1024) || c.MaxEventBytes > 512<<20 {
		faults = append(faults, fmt.Errorf("max event bytes %d: want 1024 to %d", c.MaxEventBytes, 512<<20))
	}
	if n := len(c.SecretKey); n != 0 && n != 32 {
		faults = append(faults, fmt.Errorf("secret key: %d bytes, want 32", n))
	}
	return errors.Join(faults...)
}

// Store is the outbox. It is safe for concurrent use.
type Store struct {
	cfg      Config
	pools    pools
	pool     *pgsession.Pool // of pools, by who uses this store
	pinging  chan struct{}   // holds who asks whether the outbox answers
	secrets  sealer
	log      *zap.Logger
	metrics  *metrics
	aside    *aside
	encoding *encoding
	// checkHost says, of a sender's store, why nothing may be sent to a URL's host;
	// nil where nobody asks.
	checkHost func(url string) error
	appended  chan struct{}
	inboxed   chan struct{}

	requested chan struct{}
}

// ErrFenced says that another publisher took over: this one must stop
// appending and start again from the stored position.
var ErrFenced = errors.New("fenced: another publisher took over")

// Open connects to the outbox. It neither creates nor migrates anything;
// [Migrate] does.
func Open(ctx context.Context, cfg Config, log *zap.Logger, reg prometheus.Registerer) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Retention == 0 {
		cfg.Retention = defaultRetention
	}
	if cfg.MaxEventBytes == 0 {
		cfg.MaxEventBytes = defaultMaxEventBytes
	}
	secrets, err := newSealer(cfg.SecretKey)
	if err != nil {
		return nil, err
	}
	enc := &encoding{}
	pools, err := openPools(ctx, cfg, enc)
	if err != nil {
		return nil, err
	}
	store := &Store{
		cfg:      cfg,
		pools:    pools,
		pool:     pools.serving,
		pinging:  make(chan struct{}, 1),
		aside:    &aside{},
		secrets:  secrets,
		encoding: enc,
		log:      log.Named("outbox"),
		metrics:  newMetrics(reg),
		appended: make(chan struct{}, 1),
		inboxed:  make(chan struct{}, 1),

		requested: make(chan struct{}, 1),
	}
	store.metrics.retention.Set(cfg.Retention.Seconds())
	return store, nil
}

const identitySQL = `SELECT system_identifier::text, current_database()::text FROM pg_control_system()`

// Identity is which database this is: the server's system identifier and the
// database's name.
func (s *Store) Identity(ctx context.Context) (system, database string, err error) {
	if err := s.pool.QueryRow(ctx, identitySQL).Scan(&system, &database); err != nil {
		return "", "", fmt.Errorf("identify the outbox's database: %w", err)
	}
	return system, database, nil
}

// Close ends all connections.
func (s *Store) Close() { s.pools.close() }

// Appended is signalled after each append by this process. It holds one
// signal: a reader that was busy learns once that there is more.
func (s *Store) Appended() <-chan struct{} { return s.appended }

func (s *Store) signalAppended() { signal(s.appended) }

// signalInbox tells a publisher in this process that the inbox holds something.
func (s *Store) signalInbox() { signal(s.inboxed) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// The error codes that the fences raise (migrations/001_outbox.sql).
const (
	codeFenced    = "WH001"
	codeLeaseLost = "WH002"
)

// fenceError turns what a fence raised into the condition it means.
func fenceError(err error) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	switch pgErr.Code {
	case codeFenced:
		return fmt.Errorf("%w (%s)", ErrFenced, pgErr.Message)
	case codeLeaseLost:
		return fmt.Errorf("%w (%s)", ErrLeaseLost, pgErr.Message)
	}
	return err
}

// transaction is statements that run in one transaction: in one round trip, or
// in more where it checks or copies.
type transaction struct {
	fence func(*pgx.Batch)                             // what comes first
	check func() error                                 // nil for none: whether what the fence read lets it go on
	copy  func(ctx context.Context, c *pgx.Conn) error // nil for nothing to copy
	fill  func(*pgx.Batch)                             // the rest
	// read, when not nil, reads the results of fill; without it each statement
	// reads its own, or none.
	read func(pgx.BatchResults) error

	// savepoint makes it a part of a transaction that is already open.
	savepoint bool

	// uncertain says, after an error, that nobody knows whether it is committed.
	uncertain bool
	committed bool
	atEnd     bool // all but the COMMIT is done, for all that is known
}

// run makes a transaction. After an error tx.uncertain tells whether it is known
// that it is not committed.
func (s *Store) run(ctx context.Context, tx *transaction) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if err = tx.runOn(ctx, conn.Conn()); err != nil {
		// The transaction may still be open in a failed state; a connection
		// in that state is not given back.
		rollback(ctx, conn.Conn())
	}
	return fenceError(err)
}

func (tx *transaction) runOn(ctx context.Context, conn *pgx.Conn) (err error) {
	open, end := "BEGIN", "COMMIT"
	if tx.savepoint {
		open, end = "SAVEPOINT part", "RELEASE SAVEPOINT part"
	}
	b := &pgx.Batch{}
	b.Queue(open)
	tx.fence(b)
	skip := b.Len()
	if tx.copy != nil || tx.check != nil {
		if err := conn.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		if tx.check != nil {
			if err := tx.check(); err != nil {
				return err
			}
		}
		if tx.copy != nil {
			if err := tx.copy(ctx, conn); err != nil {
				return err
			}
		}
		b, skip = &pgx.Batch{}, 0
	}
	return tx.finish(ctx, conn, b, skip, end)
}

// finish sends the rest and ends the transaction. b holds what comes before, which
// has skip answers.
func (tx *transaction) finish(ctx context.Context, conn *pgx.Conn, b *pgx.Batch, skip int, end string) (err error) {
	tx.fill(b)
	tx.atEnd = tx.read != nil || b.Len() == 0
	if !tx.atEnd {
		last := b.QueuedQueries[b.Len()-1]
		read := last.Fn
		last.Fn = func(results pgx.BatchResults) (err error) {
			if read != nil {
				err = read(results)
			} else {
				_, err = results.Exec()
			}
			tx.atEnd = err == nil
			return err
		}
	}
	b.Queue(end).Exec(func(pgconn.CommandTag) error { tx.committed = true; return nil })
	results := conn.SendBatch(ctx, b)
	if tx.read != nil {
		for ; skip > 0 && err == nil; skip-- {
			_, err = results.Exec()
		}
		if err == nil {
			err = tx.read(results)
		}
	}
	if closeErr := results.Close(); err == nil && !tx.committed {
		err = closeErr
	}
	tx.uncertain = err != nil && tx.mayBeCommitted(err)
	return err
}

// outcome is an error of the transaction that says whether it may be committed.
func (tx *transaction) outcome(err error) error {
	if tx.uncertain {
		return fmt.Errorf("%w: %w", errUncertain, err)
	}
	return err
}

// errUncertain says that nobody knows whether a transaction is committed.
var errUncertain = errors.New("it is not known whether it was committed")

// mayBeCommitted says whether the COMMIT that was sent may have been executed. A
// server that answers with an error has not: it skips the rest. A session that is
// ended may have been, once everything before the COMMIT was done.
func (tx *transaction) mayBeCommitted(err error) bool {
	if _, unsent := errors.AsType[pgx.ErrPreprocessingBatch](err); unsent || pgconn.SafeToRetry(err) {
		return false
	}
	pgErr, answered := errors.AsType[*pgconn.PgError](err)
	if tx.committed || !answered {
		return true
	}
	return pgErr.SeverityUnlocalized != "ERROR" && tx.atEnd
}

func rollback(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), time.Second, errors.New("rollback"))
	defer cancel()
	if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
		_ = conn.Close(ctx)
	}
}
