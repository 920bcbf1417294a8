package api

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"walhook/outbox"
	"walhook/outbox/admin"
)

// Feeds are the readers of feeds in this process that wait: all are woken by one tail of
// the event log, and looked at together. [NewFeeds] makes them.
type Feeds struct {
	tail  *outbox.FeedTail
	admin *admin.Admin
	log   *zap.Logger

	waiting *prometheus.GaugeVec
	served  *prometheus.CounterVec
	ended   *prometheus.CounterVec

	stopped chan struct{} // closed when the process stops

	checkEvery   time.Duration // tests look more often
	writeTimeout time.Duration // of one write to a stream

	mu      sync.Mutex
	readers map[*feedReader]int64 // those that wait, with their endpoints; guarded by mu
}

// The ways to read a feed, labels of metrics.
const (
	readByPage   = "page"
	readByStream = "stream"
)

// Why a stream ended, labels of a metric.
const (
	endedDone    = "done"    // its time is over, or the client left
	endedSlow    = "slow"    // the client does not read
	endedRefused = "refused" // its token, webhook or cursor is no longer good
	endedFailed  = "failed"  // the outbox could not be read
	endedStopped = "stopped" // the process stops
)

// feedCheckEvery is how often those who wait are looked at: whether their tokens and
// webhooks are still good.
const feedCheckEvery = 5 * time.Second

// NewFeeds registers the metrics of feeds; registry may be nil.
func NewFeeds(store *outbox.Store, log *zap.Logger, registry prometheus.Registerer) *Feeds {
	f := &Feeds{
		tail: store.FeedTail(), admin: admin.New(store), log: log.Named("api"), stopped: make(chan struct{}), readers: map[*feedReader]int64{},
		checkEvery: feedCheckEvery, writeTimeout: feedWriteTimeout,
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "walhook_feed_readers", Help: "Readers of feeds that wait for events, by how they read: page (long poll) or stream (server-sent events).",
		}, []string{"by"}),
		served: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_feed_events_total", Help: "Events handed out by feeds, by how they are read.",
		}, []string{"by"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_feed_readers_ended_total", Help: "Streams of feeds that ended, by reason. slow: the client did not read; refused: its token, webhook or cursor is no longer good; failed: the outbox could not be read.",
		}, []string{"reason"}),
	}
	for _, by := range []string{readByPage, readByStream} {
		f.waiting.WithLabelValues(by)
		f.served.WithLabelValues(by)
	}
	for _, reason := range []string{endedDone, endedSlow, endedRefused, endedFailed, endedStopped} {
		f.ended.WithLabelValues(reason)
	}
	if registry != nil {
		registry.MustRegister(f.waiting, f.served, f.ended)
	}
	return f
}

// Run serves who waits until ctx ends, and then ends every reader. It returns nil.
func (f *Feeds) Run(ctx context.Context) error {
	defer close(f.stopped)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.tail.Run(ctx) })
	group.Go(func() error {
		tick := time.NewTicker(f.checkEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			if err := f.check(ctx); err != nil && ctx.Err() == nil {
				f.log.Warn("checking who reads feeds failed, retrying", zap.Duration("retry_in", f.checkEvery), zap.Error(err))
			}
		}
	})
	return group.Wait()
}

// isStopped says that the process stops.
func (f *Feeds) isStopped() bool {
	select {
	case <-f.stopped:
		return true
	default:
		return false
	}
}

// check looks at all who wait, in two statements, and sends those away whose token ended;
// those whose webhook changed look for themselves.
func (f *Feeds) check(ctx context.Context) error {
	f.mu.Lock()
	readers, endpoints := make([]*feedReader, 0, len(f.readers)), make([]int64, 0, len(f.readers))
	for r, endpoint := range f.readers {
		readers, endpoints = append(readers, r), append(endpoints, endpoint)
	}
	f.mu.Unlock()
	if len(readers) == 0 {
		return nil
	}
	callers := make([]admin.CallerFor, len(readers))
	for i, r := range readers {
		callers[i] = admin.CallerFor{Caller: r.by, Account: r.account}
	}
	revisions, err := f.admin.Revisions(ctx, endpoints)
	if err != nil {
		return err
	}
	may, err := f.admin.AdmitsEach(ctx, callers)
	if err != nil {
		return err
	}
	for i, r := range readers {
		if !may[i] || revisions[endpoints[i]] != r.revision.Load() {
			r.lookAgain()
		}
	}
	return nil
}

// begin has a reader wait for events; end is called when it does not wait any more.
func (f *Feeds) begin(r *feedReader, by string) (end func()) {
	r.waiter = f.tail.Wait(r.endpoint.ID)
	r.changed = make(chan struct{}, 1)
	f.mu.Lock()
	f.readers[r] = r.endpoint.ID
	f.mu.Unlock()
	f.waiting.WithLabelValues(by).Inc()
	return func() {
		f.mu.Lock()
		delete(f.readers, r)
		f.mu.Unlock()
		f.waiting.WithLabelValues(by).Dec()
		r.waiter.Leave()
	}
}

// lookAgain tells a reader to see whether it may still read, and its webhook's settings.
func (r *feedReader) lookAgain() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}
