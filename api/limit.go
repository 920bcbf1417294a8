package api

import (
	"context"
	"math"
	"sync"
	"time"
)

// limit bounds how many calls of a kind may run at once, and how many may wait for
// their turn. A call beyond that is refused.
type limit struct{ running, waiting int }

// kind is the cost of a call.
type kind struct {
	account limit // of the token's account, whichever account the call is about
	whole   limit // of the process
	weight  float64
}

// The kinds. The bounds of the process keep the queue for the API's connections to the
// outbox short. Those of one account always leave connections for others.
var (
	ordinaryCall  = &kind{account: limit{3, 16}, whole: limit{16, 256}, weight: 1}
	expensiveCall = &kind{account: limit{1, 2}, whole: limit{2, 16}, weight: 4}
	// It waits for a receiver or a sender and not for the outbox.
	receiverCall = &kind{account: limit{2, 8}, whole: limit{32, 64}, weight: 0}
)

const (
	// turnTimeout is how long a call waits for its turn.
	turnTimeout = 5 * time.Second

	// An account may use timeBurst of the outbox's time at once, and from then on one
	// second per second. So a client that sends one call after the other never waits.
	timeBurst = 20 * time.Second
	timePrice = 1.0

	// limitRemember bounds for how many accounts the time is kept.
	limitRemember = 10_000
)

// limits keep one account from using up the shared resources.
type limits struct {
	readers int // of feeds at a time; 0 for the bound of feedCall alone

	mu     sync.Mutex
	queues map[queueKey]*queue
	spent  map[string]spending
	now    func() time.Time
}

type queueKey struct {
	kind    *kind
	account string // "" for the process as a whole
}

// queue holds the calls of one kind that run or wait. It exists as long as there is one.
type queue struct {
	turns  chan struct{}
	inside int // running or waiting
}

// spending is the time that an account has used, as of an instant.
type spending struct {
	used float64 // seconds
	at   time.Time
}

func newLimits(readers int) *limits {
	return &limits{readers: readers, queues: map[queueKey]*queue{}, spent: map[string]spending{}, now: time.Now}
}

// refusal says why a call gets no turn: how long its account must wait, or that the
// whole process is busy.
type refusal struct {
	busy  bool
	after time.Duration
}

// enter waits for a call's turn. leave ends the turn; it is nil when the call is
// refused. The account "" is the operator, for whom only the bounds of the process
// count.
func (l *limits) enter(ctx context.Context, k *kind, account string) (leave func(), refused refusal) {
	if account != "" {
		if after := l.debt(account); after > 0 {
			return nil, refusal{after: after}
		}
	}
	leaveAccount := func() {}
	if account != "" {
		if leaveAccount = l.turn(ctx, queueKey{k, account}, k.account); leaveAccount == nil {
			return nil, refusal{after: time.Second}
		}
	}
	whole := k.whole
	if k == feedCall && l.readers > 0 {
		whole.running = min(whole.running, l.readers)
	}
	leaveWhole := l.turn(ctx, queueKey{kind: k}, whole)
	if leaveWhole == nil {
		leaveAccount()
		return nil, refusal{busy: true, after: turnTimeout}
	}
	began := l.now()
	return func() {
		leaveWhole()
		leaveAccount()
		if account != "" {
			l.charge(account, k.weight*l.now().Sub(began).Seconds())
		}
	}, refusal{}
}

// turn takes one of a queue's turns. It returns nil when too many calls wait or the
// wait is too long.
func (l *limits) turn(ctx context.Context, key queueKey, bound limit) (leave func()) {
	l.mu.Lock()
	q := l.queues[key]
	if q == nil {
		q = &queue{turns: make(chan struct{}, bound.running)}
		l.queues[key] = q
	}
	if q.inside >= bound.running+bound.waiting {
		l.mu.Unlock()
		return nil
	}
	q.inside++
	l.mu.Unlock()
	out := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if q.inside--; q.inside == 0 {
			delete(l.queues, key)
		}
	}
	late := time.NewTimer(turnTimeout)
	defer late.Stop()
	select {
	case q.turns <- struct{}{}:
		return func() {
			<-q.turns
			out()
		}
	case <-late.C:
	case <-ctx.Done():
	}
	out()
	return nil
}

// debt returns how long an account must wait until it may use time again.
func (l *limits) debt(account string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	over := l.used(account) - timeBurst.Seconds()
	if over <= 0 {
		return 0
	}
	return time.Duration(math.Ceil(over/timePrice)) * time.Second
}

// used returns what remains of an account's spending. The caller holds mu.
func (l *limits) used(account string) float64 {
	s, known := l.spent[account]
	if !known {
		return 0
	}
	return max(s.used-timePrice*l.now().Sub(s.at).Seconds(), 0)
}

func (l *limits) charge(account string, seconds float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	used := l.used(account) + seconds
	if _, known := l.spent[account]; !known && len(l.spent) >= limitRemember {
		for other := range l.spent {
			if l.used(other) == 0 {
				delete(l.spent, other)
			}
		}
	}
	l.spent[account] = spending{used, l.now()}
}
