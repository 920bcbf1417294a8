package sender

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/internal/retry"
	"walhook/outbox"
	"walhook/sender/deliver"
)

// The waits between a lost session and the next.
const (
	rejoinMin = 100 * time.Millisecond
	rejoinMax = 10 * time.Second
)

// Sender delivers the events of the shards that it holds, while [Sender.Run] runs.
type Sender struct {
	config  Config
	policy  *policy
	log     *zap.Logger
	metrics *metrics
	outage  *retry.Outage

	events      Log
	destination deliver.Destination
	deliveries  *deliver.Destinations
	lease       atomic.Pointer[lease] // of the current session; attempts of earlier ones have ended

	tailPoll    time.Duration // how often to look for appends of other processes, without notifications
	rarePoll    time.Duration // and with them
	changesPoll time.Duration // how often to look for changed endpoints
}

// New makes a sender that delivers the events of a log. It registers its metrics with
// reg.
func New(cfg Config, events Log, log *zap.Logger, reg prometheus.Registerer) (*Sender, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("sender configuration: %w", err)
	}
	m, err := newMetrics(reg)
	if err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Sender{
		config:   cfg,
		events:   events,
		metrics:  m,
		outage:   retry.NewOutage("outbox"),
		tailPoll: 100 * time.Millisecond, rarePoll: time.Second, changesPoll: 500 * time.Millisecond,
		log: log.Named("sender"),
		policy: &policy{
			window: cfg.Window, events: cfg.LaneEvents, bytes: cfg.LaneBytes,
			schedule: newSchedule(cfg.RetrySchedule), disableAfter: cfg.DisableAfter, random: rand.Float64,
		},
	}
	cfg.HTTP.MayBegin = s.mayStart
	if s.deliveries, err = deliver.New(cfg.HTTP); err != nil {
		return nil, err
	}
	s.destination = s.deliveries
	return s, nil
}

// mayStart reports whether a request may begin now. The process may have been
// suspended since the last check, so callers check again as late as possible.
func (s *Sender) mayStart() bool {
	l := s.lease.Load()
	return l != nil && l.holds(time.Now())
}

// Run delivers until ctx ends. Then it starts no more attempts, waits for those in
// flight (at most their time limit and a little), settles them, saves the lanes and
// releases its shards. It returns nil after such a clean stop, which repeats nothing.
// An error says that a part of it failed; the next owner may then repeat what was in
// flight.
//
// When the lease is lost, the sender drops its state and joins again. When the log is on
// another timeline, it does so as well, once what was in flight is settled.
func (s *Sender) Run(ctx context.Context) error {
	defer s.deliveries.Close()
	// The end of ctx is a request to stop; stopping itself runs under live.
	live := context.WithoutCancel(ctx)
	backoff := retry.Backoff{Min: rejoinMin, Max: rejoinMax}
	for {
		joined := time.Now()
		err := s.runSession(live, ctx)
		switch {
		case errors.Is(err, errDrained):
			return nil
		case ctx.Err() != nil && (err == nil || errors.Is(err, context.Cause(ctx))):
			return nil // no session was running
		case ctx.Err() != nil && errors.Is(err, outbox.ErrLeaseLost):
			// Another sender has taken over; there is nothing left to save.
			s.log.Warn("lost the lease and stopped: attempts in flight may be repeated", zap.Error(err))
			return nil
		case ctx.Err() != nil:
			return err
		}
		if time.Since(joined) > time.Minute {
			backoff.Reset()
		}
		wait := backoff.Next()
		s.log.Warn("session ended, joining again", zap.Duration("retry_in", wait), zap.Error(err))
		if retry.Pause(ctx, wait) != nil {
			return nil
		}
	}
}

// work makes attempts until jobs is closed.
func (s *Sender) work(ctx context.Context, jobs <-chan *job, results chan<- *job) {
	for j := range jobs {
		switch {
		case s.mayStart() && len(j.batch) > 0:
			j.result = s.destination.DeliverBatch(ctx, j.endpoint, j.batch)
		case s.mayStart():
			j.result = s.destination.Deliver(ctx, j.endpoint, j.event)
		default:
			j.result = deliver.Result{Outcome: deliver.Held, Reason: deliver.ReasonLeaseOver, At: time.Now()}
		}
		results <- j
	}
}

// report logs an attempt, counts it, and calls OnAttempt for each of its events.
func (s *Sender) report(j *job, kind deliver.Outcome, retryIn time.Duration) {
	m, res := s.metrics, &j.result
	m.attempts.WithLabelValues(string(kind), res.Reason).Inc()
	m.attemptSeconds.Observe(res.Duration.Seconds())
	level := zap.InfoLevel
	if kind == deliver.Delivered {
		level = zap.DebugLevel
		for i := range j.size() {
			e, _ := j.at(i)
			m.commitToDelivery.Observe(max(res.At.Add(res.Duration).Sub(e.CommittedAt), 0).Seconds())
		}
	}
	if j.endpoint.Batch() > 0 {
		m.batchEvents.Observe(float64(j.size()))
	}
	if entry := s.log.Check(level, "attempt"); entry != nil {
		fields := []zap.Field{
			zap.Int64("endpoint", j.endpoint.ID),
			zap.String("event", j.event.WebhookID),
			zap.Int("attempt", j.event.Attempts+1),
			zap.Int("status", res.Status),
			zap.String("outcome", string(kind)),
			zap.String("reason", res.Reason),
			zap.Duration("duration", res.Duration),
		}
		if res.Status == 0 && res.Detail != "" {
			fields = append(fields, zap.String("detail", res.Detail)) // for the operator only
		}
		if j.size() > 1 { // event is the first
			fields = append(fields, zap.Int("events", j.size()))
		}
		if retryIn > 0 {
			fields = append(fields, zap.Duration("retry_in", retryIn))
		}
		entry.Write(fields...)
	}
	if s.config.OnAttempt == nil {
		return
	}
	for i := range j.size() {
		e, _ := j.at(i)
		s.config.OnAttempt(AttemptReport{
			Account: j.endpoint.Account, Endpoint: j.endpoint.ID,
			Schema: e.Schema, Type: e.Type, WebhookID: e.WebhookID,
			Attempt: e.Attempts + 1, Status: res.Status, Outcome: string(kind), Reason: res.Reason,
			At: res.At, Duration: res.Duration,
			CommittedAt: e.CommittedAt, AppendedAt: e.AppendedAt, ReadAt: e.ReadAt,
		})
	}
}

// countSettled counts the endpoints that a committed batch disables.
func (m *metrics) countSettled(batch []outbox.Settlement) {
	for i := range batch {
		s := &batch[i]
		if s.Disable == "" {
			continue
		}
		if s.Attempt.Outcome == string(deliver.Disable) {
			m.disabled.WithLabelValues(disabledGone).Inc()
		} else {
			m.disabled.WithLabelValues(disabledFailing).Inc()
		}
	}
}

// Config says how to deliver. The zero Config is usable: each zero value means the
// default that its field names. The defaults suit a process of 150 MiB: 32 MiB of
// bodies of a kilobyte supply MaxInFlight attempts for seconds, and 256 KiB hold as
// many bodies as LaneEvents allows.
type Config struct {
	// Name tells this process from other senders, in the outbox and in its logs. ""
	// means "sender".
	Name string
	// HTTP says how events are sent to URLs. The sender sets its MayBegin, and a
	// MaxIdle of zero means MaxInFlight.
	HTTP deliver.Config

	// RetrySchedule holds the delay after the first failed attempt, the
	// second and so on; the attempt after the last delay is the last. Nil
	// means 5 s, 30 s, 2 m, 10 m, 30 m, 1 h, 2 h, 4 h, 8 h, 16 h. Each delay
	// varies by ±20 %.
	RetrySchedule []time.Duration
	// DisableAfter is how long an endpoint may only fail before it is
	// disabled. Zero means 5 days.
	DisableAfter time.Duration

	Window      int           // most attempts in flight for one endpoint; zero means 64
	MaxInFlight int           // most attempts in flight in all; zero means 4096
	LaneEvents  int           // events buffered for one endpoint; zero means 256
	LaneBytes   int           // bytes of bodies buffered for one endpoint; zero means 256 KiB
	BufferBytes int           // bytes of bodies buffered in all, beyond which each lane still gets a little; zero means 32 MiB
	Lease       time.Duration // how long shards stay leased without a renewal; zero means 10 s

	// OnAttempt, when not nil, is called after each attempt, once per event of it, by the
	// dispatcher's goroutine: it must not block.
	OnAttempt func(AttemptReport)
}

// AttemptReport is one attempt, for display. It holds no URL, secret or payload.
type AttemptReport struct {
	Account     string
	Endpoint    int64
	Schema      string
	Type        string
	WebhookID   string
	Attempt     int // 1 for the first
	Status      int // 0 for none
	Outcome     string
	Reason      string
	At          time.Time // when it began
	Duration    time.Duration
	CommittedAt time.Time // by the source
	AppendedAt  time.Time // to the log
	ReadAt      time.Time // from the log, by this sender
}

// defaultSchedule is the schedule of docs/CONTRACT.md §4.
var defaultSchedule = []time.Duration{
	5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 16 * time.Hour,
}

// Validate lists every fault of c, joined, or returns nil.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"disable after", c.DisableAfter}, {"lease", c.Lease},
	} {
		if d.value < 0 {
			fault("%s %v: want a positive duration", d.name, d.value)
		}
	}
	for i, d := range c.RetrySchedule {
		if d <= 0 {
			fault("retry schedule, delay %d: %v: want a positive duration", i+1, d)
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{
		{"window", c.Window}, {"max in flight", c.MaxInFlight}, {"lane events", c.LaneEvents},
		{"lane bytes", c.LaneBytes}, {"buffer bytes", c.BufferBytes},
	} {
		if n.value < 0 {
			fault("%s %d: want a positive number", n.name, n.value)
		}
	}
	faults = append(faults, c.HTTP.Validate())
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	c.Name = cmp.Or(c.Name, "sender")
	c.DisableAfter = cmp.Or(c.DisableAfter, 5*24*time.Hour)
	c.Window = cmp.Or(c.Window, 64)
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 4096)
	c.LaneEvents = cmp.Or(c.LaneEvents, 256)
	c.LaneBytes = cmp.Or(c.LaneBytes, 256<<10)
	c.BufferBytes = cmp.Or(c.BufferBytes, 32<<20)
	c.Lease = cmp.Or(c.Lease, 10*time.Second)
	c.HTTP.MaxIdle = cmp.Or(c.HTTP.MaxIdle, c.MaxInFlight)
	c.HTTP = c.HTTP.WithDefaults()
	if c.RetrySchedule == nil {
		c.RetrySchedule = slices.Clone(defaultSchedule)
	}
	return c
}
