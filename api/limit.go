package api

import (
	"context"
	"math"
	"sync"
	"time"
)

// A limit says how many calls of a kind may run at once, and how many may wait
// for their turn; what comes on top is refused.
type limit struct{ running, waiting int }

// kind is what a call costs, and whom.
type kind struct {
	account limit // of the token's account, whichever account the call is about
	whole   limit // of the process
	weight  float64
}

// The kinds. The whole of ordinary and expensive calls fits into the outbox's
// connections for the API, and one account's never fills them.
var (
	ordinaryCall  = &kind{account: limit{3, 16}, whole: limit{16, 256}, weight: 1}
	expensiveCall = &kind{account: limit{1, 2}, whole: limit{2, 16}, weight: 4}
	// It waits for a receiver or a sender, and not for the outbox.
	receiverCall = &kind{account: limit{2, 8}, whole: limit{32, 64}, weight: 0}
)

const (
	// turnTimeout is how long a call waits for its turn.
	turnTimeout = 5 * time.Second

	// An account may use so much time of the outbox at once, and from then on
	// one second a second: whoever sends one call after the other is never held.
	timeBurst = 20 * time.Second
	timePrice = 1.0

	// limitRemember bounds how many accounts' time is remembered.
	limitRemember = 10_000
)

// limits keep one account from taking what all share.
type limits struct {
	mu     sync.Mutex
	queues map[queueKey]*queue
	spent  map[string]spending
	now    func() time.Time
}

type queueKey struct {
	kind    *kind
	account string // "" for the process as a whole
}

// queue is the calls of one kind that run or wait. It is there as long as one
// does.
type queue struct {
	turns  chan struct{}
	inside int // running or waiting
}

// spending is how much of its time an account has used, at an instant.
type spending struct {
	used float64 // seconds
	at   time.Time
}

func newLimits() *limits {
	return &limits{queues: map[queueKey]*queue{}, spent: map[string]spending{}, now: time.Now}
}

// refusal is why a call has no turn: for how long its account has to wait, or
// that the process as a whole is busy.
type refusal struct {
	busy  bool
	after time.Duration
}

// enter waits for a call's turn. leave ends it; it is nil where the call is
// refused. An account named "" is the operator, whom only the whole bounds.
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
	leaveWhole := l.turn(ctx, queueKey{kind: k}, k.whole)
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

// turn takes one of a queue's turns; nil when too many wait, or for too long.
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

// debt is how long an account has to wait until it may use time again.
func (l *limits) debt(account string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	over := l.used(account) - timeBurst.Seconds()
	if over <= 0 {
		return 0
	}
	return time.Duration(math.Ceil(over/timePrice)) * time.Second
}

// used is what is left of an account's spending. The caller holds mu.
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
