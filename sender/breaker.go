package sender

import (
	"errors"
	"time"

	"walhook/internal/retry"

	"github.com/sony/gobreaker/v2"
)

const (
	// The breaker opens after breakerFailures failures without a delivery between
	// them, of at least breakerRecords different records. A receiver that fails one
	// time in five fails five times in a row once in 3,000 attempts.
	breakerFailures = 5
	breakerRecords  = 2
	openMin         = 10 * time.Second // the first open time; it doubles each time
	openMax         = 10 * time.Minute
)

// The errors that gobreaker counts results by.
var (
	errEndpointFault = errors.New("endpoint in trouble")
	errNotCounted    = errors.New("not counted")
)

// breaker adds to gobreaker's state machine what a lane needs. It opens only when
// attempts of more than one record fail in a row, so that one event that always fails
// does not open it. Its open time grows. Its state can be saved and restored. One
// lane owns it.
//
//	closed ──several records fail──▶ open ──until is past───▶ half-open
//	   ▲                              ▲                        │     │
//	   │                              └──── the probe fails ───┘     │
//	   └──────────────────── the probe is answered ──────────────────┘
//
// The field until alone says how long the breaker is open, by the instants that the
// lane passes in. gobreaker counts from its own reading of the clock, which is later
// than the lane's by the time that a batch takes, and would refuse the probe that the
// lane starts. So its own open time is a nanosecond.
type breaker struct {
	two    *gobreaker.TwoStepCircuitBreaker[struct{}]
	random func() float64

	failing  map[string]struct{} // records that failed since the last success
	failures int                 // attempts that failed since then
	opens    int                 // in a row
	until    time.Time           // end of the open time; zero when closed
	entered  gobreaker.State     // the last new state of two

	restoring bool // the next failure opens it
}

// newBreaker is a closed breaker.
func newBreaker(random func() float64) *breaker {
	b := &breaker{random: random}
	b.two = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: 1,
		Timeout:     time.Nanosecond, // zero would mean a minute
		ReadyToTrip: func(gobreaker.Counts) bool {
			return b.restoring || b.failures >= breakerFailures && len(b.failing) >= breakerRecords
		},
		OnStateChange: func(_ string, _, to gobreaker.State) { b.entered = to },
		IsExcluded:    func(err error) bool { return errors.Is(err, errNotCounted) },
	})
	return b
}

// restoreBreaker makes a breaker that is open until a time, and at least for a random
// part of spread, or of its own open time where until is past: many breakers that are
// restored together do not all probe at once.
func restoreBreaker(opens int, until time.Time, spread time.Duration, now time.Time, random func() float64) *breaker {
	b := newBreaker(random)
	b.restoring = true
	if done, err := b.two.Allow(); err == nil {
		done(errEndpointFault)
	}
	b.restoring = false
	b.opens = max(opens, 1)
	if !until.After(now) {
		spread = max(spread, openTime(b.opens))
	}
	if earliest := now.Add(time.Duration(random() * float64(spread))); earliest.After(until) {
		until = earliest
	}
	b.trip(until)
	return b
}

// trip sets until when the breaker is open, which is at least a millisecond:
// gobreaker allows a probe only after its clock has advanced.
func (b *breaker) trip(until time.Time) {
	if soonest := time.Now().Add(time.Millisecond); until.Before(soonest) {
		until = soonest
	}
	b.until, b.failing, b.failures = until, nil, 0
}

// permit allows one attempt. The caller calls done once, with nil for an endpoint
// that works, errEndpointFault or errNotCounted.
type permit struct {
	probe bool
	done  func(error)
}

// allow gives a permit for an attempt; while half-open one at a time.
func (b *breaker) allow(now time.Time) (permit, bool) {
	if now.Before(b.until) {
		return permit{}, false
	}
	probe := !b.until.IsZero()
	done, err := b.two.Allow()
	if err != nil {
		return permit{}, false
	}
	return permit{probe: probe, done: done}, true
}

// verdict is what an attempt says about its endpoint.
type verdict struct {
	result error  // nil, errEndpointFault or errNotCounted
	record string // of the event that was sent
	// unsent says that the event was not sent, so the endpoint does not fail because
	// of its record.
	unsent bool
	weight int // how many failures it counts for
}

// settle ends a permit of this breaker.
func (b *breaker) settle(p permit, v verdict, now time.Time) {
	switch {
	case errors.Is(v.result, errEndpointFault):
		if b.failing == nil {
			b.failing = map[string]struct{}{}
		}
		b.failing[v.record] = struct{}{}
		if v.unsent {
			b.failing[""] = struct{}{}
		}
		b.failures += v.weight
	case v.result == nil:
		b.failing, b.failures = nil, 0
	}
	b.entered = gobreaker.StateHalfOpen // neither open nor closed, unless done changes it
	p.done(v.result)                    // gobreaker ignores a permit of an earlier state
	switch b.entered {
	case gobreaker.StateOpen:
		b.opens++
		b.trip(now.Add(retry.Jitter(openTime(b.opens), b.random)))
	case gobreaker.StateClosed:
		b.until, b.opens, b.failing, b.failures = time.Time{}, 0, nil, 0
	}
}

// closed says that the lane may use its whole window.
func (b *breaker) closed() bool { return b.until.IsZero() }

// open says that no attempt may start yet.
func (b *breaker) open(now time.Time) bool { return now.Before(b.until) }

// openTime is how long the n-th opening in a row lasts, before jitter.
func openTime(n int) time.Duration {
	d := openMin
	for range n - 1 {
		if d *= 2; d >= openMax {
			return openMax
		}
	}
	return d
}
