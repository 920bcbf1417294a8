package api

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// testLimit bounds how often an account tests, and how often any accounts test a host,
// because each test is a request to a third party.
type testLimit struct {
	mu    sync.Mutex
	taken map[testedBy]*rate.Limiter
	now   func() time.Time
}

// testedBy identifies a counter of tests: one of the two is "".
type testedBy struct{ account, host string }

const (
	testBurst     = 10
	testEvery     = 3 * time.Second
	hostTestBurst = 20
	testRemember  = 20_000
)

func newTestLimit() *testLimit {
	return &testLimit{taken: map[testedBy]*rate.Limiter{}, now: time.Now}
}

// take notes a test, or returns how long to wait before the next one.
func (t *testLimit) take(account, host string) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	mine, theirs := t.limiter(testedBy{account: account}, testBurst, now), t.limiter(testedBy{host: host}, hostTestBurst, now)
	// Both or neither: a test that one limit refuses does not use up the other.
	first, second := mine.ReserveN(now, 1), theirs.ReserveN(now, 1)
	if wait = max(first.DelayFrom(now), second.DelayFrom(now)); wait > 0 {
		first.CancelAt(now)
		second.CancelAt(now)
	}
	return wait
}

func (t *testLimit) limiter(of testedBy, burst int, now time.Time) *rate.Limiter {
	limit := t.taken[of]
	if limit == nil {
		t.forget(now)
		limit = rate.NewLimiter(rate.Every(testEvery), burst)
		t.taken[of] = limit
	}
	return limit
}

// forget drops the counters that are full again, once there are many. There are more
// than that only while so many accounts and hosts test at the same time.
func (t *testLimit) forget(now time.Time) {
	if len(t.taken) < testRemember {
		return
	}
	for of, limit := range t.taken {
		if limit.TokensAt(now) >= float64(limit.Burst()) {
			delete(t.taken, of)
		}
	}
}
