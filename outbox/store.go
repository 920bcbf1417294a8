package outbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/internal/pgsession"
	"walhook/outbox/seal"
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

	// statementTimeout is well below a sender's lease, so that a process that
	// freezes inside a transaction loses its fence before others need it.
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
	secrets  seal.Sealer
	log      *zap.Logger
	metrics  *metrics
	aside    *aside
	encoding *encoding
	fresh    *fresh
	// checkHost says, of a sender's store, why nothing may be sent to a URL's host;
	// nil where nobody asks.
	checkHost func(url string) error
	// The parts of this process wait for these; other processes reach them by listener.
	appended  chan struct{}
	fed       chan struct{} // as appended, for the feeds
	changed   chan struct{}
	inboxed   chan struct{}
	requested chan struct{}

	notifier *notifier
	listener *listener
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
	secrets, err := seal.New(cfg.SecretKey)
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
		fresh:    &fresh{},
		log:      log.Named("outbox"),

		appended:  make(chan struct{}, 1),
		fed:       make(chan struct{}, 1),
		changed:   make(chan struct{}, 1),
		inboxed:   make(chan struct{}, 1),
		requested: make(chan struct{}, 1),
	}
	store.metrics = newMetrics(reg, store.NotifiedUntil)
	store.listener = newListener(store, store.metrics)
	store.notifier = newNotifier(pools.notifying, store.log, store.metrics)
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

// Close sends the notifications that are due, within a second, and ends all connections.
func (s *Store) Close() {
	s.notifier.close()
	s.pools.close()
}

// Appended is signalled after each append by this process, and by another one as far
// as [Store.NotifiedUntil] says. It holds one signal: a reader that was busy learns
// once that there is more.
func (s *Store) Appended() <-chan struct{} { return s.appended }

// signalAppended wakes the senders: the events up to an id are committed.
func (s *Store) signalAppended(id int64) {
	signal(s.appended)
	signal(s.fed)
	s.notifier.appended(id)
}

// signalEndpoints wakes the senders: endpoints have changed.
func (s *Store) signalEndpoints() {
	signal(s.changed)
	s.notifier.tell(newsEndpoints)
}

// signalInbox wakes the publisher: the inbox holds something.
func (s *Store) signalInbox() {
	signal(s.inboxed)
	s.notifier.tell(newsInbox)
}

// signalRequest wakes the publisher: a request was stored.
func (s *Store) signalRequest() {
	signal(s.requested)
	s.notifier.tell(newsRequest)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
