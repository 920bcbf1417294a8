package outbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/internal/pgsession"
	"walhook/internal/retry"
)

// channel is what processes notify each other on (PostgreSQL manual, NOTIFY). A
// database holds one outbox, and the server keeps the channels of databases apart.
const channel = "walhook_outbox"

// news is what a process has to say to the others: a set.
type news uint8

const (
	newsAppended  news = 1 << iota // events are in the event log
	newsEndpoints                  // endpoints have changed
	newsInbox                      // the inbox holds something
	newsRequest                    // a replay was requested
	newsAlive                      // the publisher is at work, and its notifications arrive
)

// newsLetters are the members of news in a payload, from the lowest bit on.
const newsLetters = "aeirl"

// notification is the payload of one: "1 PROCESS NEWS NEWEST". Another version than 1
// is for newer processes, and so is a letter that this one does not know.
type notification struct {
	process string // that sends it
	news    news
	newest  int64 // the last event that it has appended; 0 for none
}

const (
	notificationVersion = "1"
	maxPayload          = 100 // bytes, and more than any of ours
)

func (n notification) String() string {
	var letters []byte
	for i := range len(newsLetters) {
		if n.news&(1<<i) != 0 {
			letters = append(letters, newsLetters[i])
		}
	}
	return fmt.Sprintf("%s %s %s %d", notificationVersion, n.process, letters, n.newest)
}

// parseNotification reads a payload, which anybody with a connection may have sent.
func parseNotification(payload string) (n notification, ok bool) {
	if len(payload) > maxPayload {
		return n, false
	}
	version, rest, _ := strings.Cut(payload, " ")
	process, rest, _ := strings.Cut(rest, " ")
	letters, newest, _ := strings.Cut(rest, " ")
	id, err := strconv.ParseInt(newest, 10, 64)
	if version != notificationVersion || process == "" || err != nil || id < 0 {
		return n, false
	}
	n = notification{process: process, newest: id}
	for i := range len(letters) {
		if bit := strings.IndexByte(newsLetters, letters[i]); bit >= 0 {
			n.news |= 1 << bit
		}
	}
	return n, true
}

const (
	// notifyEvery is the least time between two notifications of a process: a
	// transaction with a NOTIFY gets a transaction id, takes a lock of the whole
	// server at its commit, and wakes every process that listens.
	notifyEvery = 5 * time.Millisecond
	// aliveEvery is how often the publisher says that it is at work.
	aliveEvery = time.Second

	notifyTimeout = 2 * time.Second
	// lastNotifyTimeout bounds what Close still sends.
	lastNotifyTimeout = time.Second

	notifyRetryMin = 50 * time.Millisecond
	notifyRetryMax = 5 * time.Second
)

// notifier sends notifications, outside of every transaction that they are about, on a
// connection of its own and no more than one each notifyEvery. Until one is sent,
// further news joins it. One that the server refuses is tried again. A process that
// misses it finds out by its poll.
type notifier struct {
	pool    *pgsession.Pool // of one connection
	process string
	log     *zap.Logger
	sent    prometheus.Counter
	failed  prometheus.Counter

	// alone says that this process publishes, and that no other one waits for its news.
	alone atomic.Bool
	// listener is the backend that this process listens by; 0 for none.
	listener atomic.Uint32

	wake chan struct{} // capacity 1
	stop chan struct{}

	mu      sync.Mutex
	pending news           // guarded by mu, as is the rest
	newest  int64          // the last event that this process has appended
	started bool           // run
	stopped bool           // by close
	running sync.WaitGroup // run
}

func newNotifier(pool *pgsession.Pool, log *zap.Logger, m *metrics) *notifier {
	return &notifier{
		pool: pool, process: newProcess(), log: log,
		sent: m.notifications.WithLabelValues(notificationSent), failed: m.notifications.WithLabelValues(notificationFailed),
		wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}
}

// newProcess is a name that no other process has.
func newProcess() string {
	var name [8]byte
	_, _ = rand.Read(name[:]) // it never fails
	return hex.EncodeToString(name[:])
}

// appended says that the events up to an id are committed.
func (n *notifier) appended(id int64) {
	n.mu.Lock()
	n.newest = max(n.newest, id)
	n.mu.Unlock()
	n.tell(newsAppended)
}

// tell sends news soon. It does not wait.
func (n *notifier) tell(what news) {
	if n.alone.Load() && what&newsAlive == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		return
	}
	n.pending |= what
	if !n.started {
		n.started = true
		n.running.Go(n.run)
	}
	signal(n.wake)
}

// take empties what is pending.
func (n *notifier) take() notification {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := notification{process: n.process, news: n.pending, newest: n.newest}
	n.pending = 0
	return next
}

// run sends until close is called, and then what is still pending.
func (n *notifier) run() {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var reminder retry.Reminder
	backoff := retry.Backoff{Min: notifyRetryMin, Max: notifyRetryMax}
	for stopping := false; !stopping; {
		select {
		case <-n.wake:
		case <-n.stop:
			stopping = true
			end := time.AfterFunc(lastNotifyTimeout, func() { cancel(errors.New("the process stops")) })
			defer end.Stop()
		}
		next := n.take()
		if next.news == 0 {
			continue
		}
		began := time.Now()
		wait := notifyEvery
		if err := n.send(ctx, next); err != nil {
			n.failed.Inc()
			wait = backoff.Next()
			n.tell(next.news)
			if reminder.Due("") {
				reminder.Logged("")
				n.log.Warn("notifying other processes failed, they poll meanwhile", zap.Duration("retry_in", wait), zap.Error(err))
			}
		} else {
			backoff.Reset()
		}
		select {
		case <-n.stop:
		case <-time.After(wait - time.Since(began)):
		}
	}
}

const (
	notifySQL = `SELECT pg_notify('` + channel + `', $1)`

	// The one that says that the publisher is at work is sent only if another process
	// listens. Everybody may see the names of sessions, whoever they belong to.
	notifyAliveSQL = notifySQL + ` WHERE EXISTS (
		SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = '` + listenerName + `' AND pid <> $2)`
)

func (n *notifier) send(ctx context.Context, next notification) error {
	ctx, cancel := context.WithTimeoutCause(ctx, notifyTimeout, errors.New("notify the other processes: timed out"))
	defer cancel()
	sql, args := notifySQL, []any{next.String()}
	if next.news&newsAlive != 0 {
		sql, args = notifyAliveSQL, append(args, int32(n.listener.Load()))
	}
	tag, err := n.pool.Exec(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("notify the other processes: %w", err)
	}
	if next.news&newsAlive != 0 {
		n.alone.Store(tag.RowsAffected() == 0)
	}
	if tag.RowsAffected() > 0 {
		n.sent.Inc()
	}
	return nil
}

// close sends what is pending, within a second, and ends run.
func (n *notifier) close() {
	n.mu.Lock()
	if !n.stopped {
		n.stopped = true
		close(n.stop)
	}
	n.mu.Unlock()
	n.running.Wait()
}

// announce says every second that this publisher is at work, while it is: to the
// senders of other processes, which then need not poll, and to those of this one.
func (p *Publisher) announce(ctx context.Context) {
	n := p.store.notifier
	defer n.alone.Store(false) // another publisher may follow
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for {
		if p.isLive() {
			p.store.listener.notified()
			n.tell(newsAlive)
		} else {
			n.alone.Store(false)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (p *Publisher) isLive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live
}
