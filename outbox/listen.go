package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"walhook/internal/pgsession"
	"walhook/internal/retry"
)

const (
	// listenerName is what the server knows the session by that a sender listens on.
	// A publisher looks for such sessions.
	listenerName = "walhook listener"

	// notifiedFor is how long a sender relies on notifications after the last one of a
	// publisher, which sends one a second.
	notifiedFor = 3 * time.Second

	// listenCheck is how often the connection is tried: one that the network has
	// forgotten stays silent for ever.
	listenCheck   = 15 * time.Second
	listenTimeout = 15 * time.Second

	listenRetryMin = 100 * time.Millisecond
	listenRetryMax = 5 * time.Second
	// pooledRetry is how long a pooler counts as being in transaction mode.
	pooledRetry = 10 * time.Minute
)

// Anybody who may connect to the database may send notifications. What they start is
// bounded: so many looks a second, and so many at once.
const (
	tailsPerSecond, tailsAtOnce = 200, 20
	looksPerSecond, looksAtOnce = 10, 2
)

// listener knows what other processes say, and since when they are silent.
type listener struct {
	until  atomic.Pointer[time.Time] // that notifications can be relied upon
	tailed atomic.Int64              // the event log is read up to here by this process

	appended, fed, endpoints, inbox, request gate

	received, ignored prometheus.Counter
}

func newListener(s *Store, m *metrics) *listener {
	tails, looks := rate.Limit(tailsPerSecond), rate.Limit(looksPerSecond)
	return &listener{
		appended:  gate{limiter: rate.NewLimiter(tails, tailsAtOnce), to: s.appended},
		fed:       gate{limiter: rate.NewLimiter(tails, tailsAtOnce), to: s.fed},
		endpoints: gate{limiter: rate.NewLimiter(looks, looksAtOnce), to: s.changed},
		inbox:     gate{limiter: rate.NewLimiter(looks, looksAtOnce), to: s.inboxed},
		request:   gate{limiter: rate.NewLimiter(looks, looksAtOnce), to: s.requested},
		received:  m.notifications.WithLabelValues(notificationReceived),
		ignored:   m.notifications.WithLabelValues(notificationIgnored),
	}
}

// gate passes signals on, no more often than its limiter allows. What it holds back is
// one signal, which follows as soon as it may.
type gate struct {
	limiter *rate.Limiter
	to      chan struct{}
	held    atomic.Bool
}

func (g *gate) pass() {
	if g.held.Load() {
		return
	}
	wait := g.limiter.Reserve().Delay()
	if wait == 0 {
		signal(g.to)
		return
	}
	g.held.Store(true)
	time.AfterFunc(wait, func() {
		g.held.Store(false)
		signal(g.to)
	})
}

// NotifiedUntil is until when this process gets to know of each append as it is
// committed, whichever process appends. In the past, it does not: it has to poll.
func (s *Store) NotifiedUntil() time.Time {
	if until := s.listener.until.Load(); until != nil {
		return *until
	}
	return time.Time{}
}

// Changed is signalled after endpoints have changed, as far as that is known: by this
// process, or another one that could say so. It holds one signal.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// notified notes that a publisher's notifications arrive.
func (l *listener) notified() { l.until.Store(new(time.Now().Add(notifiedFor))) }

// silenced notes that none arrives from now on.
func (l *listener) silenced() { l.until.Store(nil) }

// readUpTo notes how far this process has read the event log.
func (l *listener) readUpTo(id int64) {
	for {
		before := l.tailed.Load()
		if id <= before || l.tailed.CompareAndSwap(before, id) {
			return
		}
	}
}

// take acts on a notification that another process than own has sent. An id
// that no event has yet starts one look, and is not remembered.
func (l *listener) take(payload, own string) {
	n, ok := parseNotification(payload)
	if !ok {
		l.ignored.Inc()
		return
	}
	if n.process == own {
		return
	}
	l.received.Inc()
	if n.news&(newsAppended|newsAlive) != 0 {
		l.notified()
		if n.newest > l.tailed.Load() {
			l.appended.pass()
		}
	}
	if n.news&newsAppended != 0 {
		l.fed.pass() // the feeds may not have read as far as the sender
	}
	if n.news&newsEndpoints != 0 {
		l.endpoints.pass()
	}
	if n.news&newsInbox != 0 {
		l.inbox.pass()
	}
	if n.news&newsRequest != 0 {
		l.request.pass()
	}
}

// look has everything looked at once that a notification may be missing for.
func (l *listener) look() {
	for _, g := range []*gate{&l.appended, &l.fed, &l.endpoints, &l.inbox, &l.request} {
		g.pass()
	}
}

// Listen has other processes wake the parts of this one, until ctx ends: a sender for
// appended events and changed endpoints, feeds for appended events, a publisher for the
// inbox and replays. sends says that this process has a sender or serves feeds. While the connection is away, or cannot listen,
// they poll. It returns nil.
func (s *Store) Listen(ctx context.Context, sends bool) error {
	var reminder retry.Reminder // of cuts, however many there are
	backoff := retry.Backoff{Min: listenRetryMin, Max: listenRetryMax}
	pooled := false
	for {
		err := s.listen(ctx, sends, func() {
			backoff.Reset()
			pooled = false
		})
		s.notifier.listener.Store(0)
		s.listener.silenced()
		s.listener.look()
		if ctx.Err() != nil {
			return nil
		}
		wait := backoff.Next()
		if pooler, ok := errors.AsType[*pgsession.PoolerError](err); ok {
			if wait = pooledRetry; !pooled {
				s.log.Info("polling the outbox for events of other processes: notifications do not pass the connection pooler", zap.String("reason", pooler.Reason))
			}
			pooled = true
		} else if reminder.Due("") {
			reminder.Logged("")
			s.log.Warn("no notifications from other processes, polling the outbox meanwhile", zap.Duration("retry_in", wait), zap.Error(err))
		}
		if retry.Pause(ctx, wait) != nil {
			return nil
		}
	}
}

const (
	listenSQL = `LISTEN ` + channel

	backendSQL = `SELECT pg_backend_pid()`
)

// listen listens on a connection of its own until it ends. The connection is never
// inside a transaction: the server keeps all notifications of all databases that a
// listening session has not read (PostgreSQL manual, NOTIFY).
func (s *Store) listen(ctx context.Context, sends bool, began func()) error {
	conn, err := s.connectListener(ctx, sends)
	if err != nil {
		return fmt.Errorf("connect to listen: %w", err)
	}
	defer pgsession.Close(ctx, conn)
	// First listen, then look: what is committed in between is seen.
	if err := s.startListening(ctx, conn); err != nil {
		return err
	}
	began()
	s.listener.look()
	for {
		if err := waitForNotifications(ctx, conn, listenCheck); err != nil {
			return err
		}
		if err := within(ctx, listenTimeout, conn.Ping); err != nil {
			return fmt.Errorf("check the listening connection: %w", err)
		}
	}
}

func (s *Store) connectListener(ctx context.Context, sends bool) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, listenTimeout, errors.New("timed out"))
	defer cancel()
	name := applicationName
	if sends {
		name = listenerName
	}
	settings := append(pinned(servingTimeout),
		// The server's side gives up where this process is frozen and reads nothing, so
		// that nothing piles up there for it.
		pgsession.Setting{Name: "tcp_user_timeout", Value: milliseconds(listenTimeout)},
		// Publishers look for it, and a pooler may drop the name of the startup message.
		pgsession.Setting{Name: "application_name", Value: name})
	cfg, err := s.cfg.session(s.pools.upkeep.Config().ConnConfig, name, settings)
	if err != nil {
		return nil, err
	}
	cfg.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { s.listener.take(n.Payload, s.notifier.process) }
	return pgsession.ConnectListener(ctx, cfg, s.pools.guard)
}

func (s *Store) startListening(ctx context.Context, conn *pgx.Conn) error {
	return within(ctx, listenTimeout, func(ctx context.Context) error {
		if _, err := conn.Exec(ctx, listenSQL); err != nil {
			return fmt.Errorf("listen for notifications: %w", err)
		}
		var pid int32
		if err := conn.QueryRow(ctx, backendSQL).Scan(&pid); err != nil {
			return fmt.Errorf("listen for notifications: %w", err)
		}
		s.notifier.listener.Store(uint32(pid))
		return nil
	})
}

// waitForNotifications lets them arrive for a while.
func waitForNotifications(ctx context.Context, conn *pgx.Conn, while time.Duration) error {
	turn, cancel := context.WithTimeout(ctx, while)
	defer cancel()
	for {
		err := conn.PgConn().WaitForNotification(turn)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case turn.Err() != nil && !conn.IsClosed():
			return nil
		default:
			return fmt.Errorf("wait for notifications: %w", err)
		}
	}
}

func within(ctx context.Context, limit time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("timed out"))
	defer cancel()
	return call(ctx)
}
