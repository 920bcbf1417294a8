package sender

import (
	"errors"
	"time"

	"walhook/internal/retry"

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
	errNotCounted    = errors.New("not counted")
)

// breaker is gobreaker's state machine with what a lane needs besides: it
// opens when several attempts fail in a row, of more than one record, and
// nothing is delivered between, so one poisonous event opens nothing; its open
// time grows; and its state can be kept and restored. One lane owns it.
//
//	closed ──several records fail──▶ open ──until has come──▶ half-open
//	   ▲                              ▲                        │     │
//	   │                              └──── the probe fails ───┘     │
//	   └──────────────────── the probe is answered ──────────────────┘
//
// How long it is open is until's alone to say, by the instants that the lane
// passes in. gobreaker would count from its own reading of the clock, which is
// later than the lane's by what a batch takes to work off, and would refuse the
// probe that the lane starts. So its own open time is as good as none.
type breaker struct {
	two    *gobreaker.TwoStepCircuitBreaker[struct{}]
	random func() float64

	failing  map[string]struct{} // records that failed since the last success
	failures int                 // attempts that did
	opens    int                 // in a row
	until    time.Time           // end of the open time; zero when closed
	entered  gobreaker.State     // the state that two took last

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

// restoreBreaker is open until the given time, and at least for a random part of
// its own open time where that is past, and of spread in any case: so many
// restored at once do not all probe at once.
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

// trip notes until when it is open. It is for a moment in any case: gobreaker
// lets a probe through once it has seen its clock move.
func (b *breaker) trip(until time.Time) {
	if soonest := time.Now().Add(time.Millisecond); until.Before(soonest) {
		until = soonest
	}
	b.until, b.failing, b.failures = until, nil, 0
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
	b.entered = gobreaker.StateHalfOpen // which asks for nothing
	p.done(v.result)                    // a permit from before the last change of state changes none
	switch b.entered {
	case gobreaker.StateOpen:
		b.opens++
		b.trip(now.Add(retry.Jitter(openTime(b.opens), b.random)))
	case gobreaker.StateClosed:
		b.until, b.opens, b.failing, b.failures = time.Time{}, 0, nil, 0
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
