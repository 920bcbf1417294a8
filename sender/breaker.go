package sender

import (
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"
)

const (
	// breakerFailures is how many attempts fail in a row, with nothing
	// delivered between, before it opens, and breakerRecords of how many
	// different records they are. A receiver that fails one time in five fails
	// five times in a row once in 3,000 attempts.
	breakerFailures = 5
	breakerRecords  = 2
	openMin         = 10 * time.Second // the first open time; each further one doubles
	openMax         = 10 * time.Minute
)

// Errors that a permit is closed with: what gobreaker counts.
var (
	errEndpointFault = errors.New("endpoint in trouble")
	errNotCounted    = errors.New("says nothing about the endpoint")
)

// breaker is gobreaker's state machine with what a lane needs besides: it
// opens when several attempts fail in a row, of more than one record, and
// nothing is delivered between, so one poisonous event opens nothing; its open
// time grows; and its
// state can be kept and restored. One lane owns it.
type breaker struct {
	two    *gobreaker.TwoStepCircuitBreaker[struct{}]
	random func() float64

	failing  map[string]struct{} // records that failed since the last success
	failures int                 // attempts that did
	opens    int                 // in a row
	until    time.Time           // end of the open time; zero when closed
}

// newBreaker is a closed breaker.
func newBreaker(random func() float64) *breaker {
	b := &breaker{random: random}
	b.two = b.gobreaker(0)
	return b
}

// restoreBreaker is open until the given time, and at least for a random part of
// its own open time where that is past, and of spread in any case: so many
// restored at once do not all probe at once.
func restoreBreaker(opens int, until time.Time, spread time.Duration, now time.Time, random func() float64) *breaker {
	b := &breaker{random: random, opens: max(opens, 1)}
	if !until.After(now) {
		spread = max(spread, openTime(b.opens))
	}
	if earliest := now.Add(time.Duration(random() * float64(spread))); earliest.After(until) {
		until = earliest
	}
	b.trip(until, now)
	return b
}

// gobreaker is a closed state machine. Zero open time means one that opens
// when several records fail, and is then replaced; otherwise it opens at the
// first failure.
func (b *breaker) gobreaker(open time.Duration) *gobreaker.TwoStepCircuitBreaker[struct{}] {
	timeout := openMax
	if open > 0 {
		timeout = max(open-time.Millisecond, time.Nanosecond) // ours, until, ends last
	}
	return gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: 1,
		Timeout:     timeout,
		ReadyToTrip: func(gobreaker.Counts) bool {
			return open > 0 || b.failures >= breakerFailures && len(b.failing) >= breakerRecords
		},
		IsExcluded: func(err error) bool { return errors.Is(err, errNotCounted) },
	})
}

// trip replaces the state machine by one that is open until the given time;
// gobreaker's own open time is fixed when it is made.
func (b *breaker) trip(until, now time.Time) {
	b.until = until
	b.two = b.gobreaker(max(until.Sub(now), time.Millisecond))
	if done, err := b.two.Allow(); err == nil {
		done(errEndpointFault)
	}
}

// permit is leave for one attempt. Its done must be called once, with nil for
// an answer from a living endpoint, errEndpointFault or errNotCounted.
type permit struct {
	probe bool
	done  func(error)
}

// allow gives leave for an attempt; while half-open to one at a time.
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
	// unsent says that the event never left, so that it cannot be what the
	// endpoint fails at, whatever its record.
	unsent bool
	weight int // for how many failures it counts
}

// settle closes a permit that this breaker gave.
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
	p.done(v.result)
	switch b.two.State() {
	case gobreaker.StateOpen:
		if !now.Before(b.until) {
			b.opens++
			b.trip(now.Add(jitter(openTime(b.opens), b.random)), now)
			b.failing, b.failures = nil, 0
		}
	case gobreaker.StateClosed:
		if !b.until.IsZero() {
			b.two = b.gobreaker(0)
			b.until, b.opens, b.failing, b.failures = time.Time{}, 0, nil, 0
		}
	}
}

// closed says that no probe stands between the lane and its window.
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
