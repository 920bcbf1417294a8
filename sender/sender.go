package sender

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// Sender delivers the events of the shards that it holds. [Sender.Run] is its
// life.
type Sender struct {
	config  Config
	policy  *policy
	log     *zap.Logger
	metrics *metrics
	outage  *retry.Outage

	events      Log
	destination deliver.Destination
	http        *deliver.HTTP
	lease       atomic.Pointer[lease] // the present session's; attempts of an earlier one are over

	tailPoll    time.Duration // for appends of other processes
	changesPoll time.Duration // for endpoints that changed without an event
}

// New makes a sender that delivers what is in events. It registers its metrics
// with reg.
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
		tailPoll: 100 * time.Millisecond, changesPoll: 500 * time.Millisecond,
		log: log.Named("sender"),
		policy: &policy{
			window: cfg.Window, events: cfg.LaneEvents, bytes: cfg.LaneBytes,
			schedule: newSchedule(cfg.RetrySchedule), disableAfter: cfg.DisableAfter, random: rand.Float64,
		},
	}
	cfg.HTTP.MayBegin = s.mayStart
	if s.http, err = deliver.NewHTTP(cfg.HTTP); err != nil {
		return nil, err
	}
	s.destination = s.http
	return s, nil
}

// mayStart says whether a request may begin now. A process may have stood still
// since it was asked last, so it is asked again as late as possible.
func (s *Sender) mayStart() bool {
	l := s.lease.Load()
	return l != nil && l.holds(time.Now())
}

// Run delivers until ctx ends. Then it starts nothing more, waits for the
// attempts that run (at most the attempt's own limit and a little), settles
// them, saves the lanes and releases its shards: a clean stop, nil, repeats
// nothing. An error says that some of it was not possible; whoever takes over
// may then repeat what was in flight.
//
// A lost lease ends nothing: the sender drops its state and joins again.
func (s *Sender) Run(ctx context.Context) error {
	defer s.http.Close()
	// The end of ctx only asks to stop; what it takes to stop continues.
	live := context.WithoutCancel(ctx)
	backoff := retry.Backoff{Min: rejoinMin, Max: rejoinMax}
	for {
		joined := time.Now()
		err := s.runSession(live, ctx)
		switch {
		case errors.Is(err, errDrained):
			return nil
		case ctx.Err() != nil && (err == nil || errors.Is(err, context.Cause(ctx))):
			return nil // nothing was begun
		case ctx.Err() != nil && errors.Is(err, outbox.ErrLeaseLost):
			// Others have taken over; there is nothing left to hand on.
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
