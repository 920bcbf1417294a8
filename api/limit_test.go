package api

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"walhook/outbox/admin"
)

func TestLimits_OneAccountNeverTakesWhatAllShare(t *testing.T) {
	l := newLimits(0)
	k := &kind{account: limit{1, 1}, whole: limit{2, 0}, weight: 1}
	enter := func(account string) (func(), refusal) { return l.enter(t.Context(), k, account) }
	leave, _ := enter("7")
	if leave == nil {
		t.Fatal("the first call is refused")
	}
	ctx, cancel := context.WithCancel(t.Context())
	waited := make(chan refusal, 1)
	go func() {
		_, refused := l.enter(ctx, k, "7")
		waited <- refused
	}()
	for l.inside(queueKey{k, "7"}) != 2 {
		time.Sleep(time.Millisecond)
	}
	if again, refused := enter("7"); again != nil || refused.busy || refused.after <= 0 {
		t.Errorf("a third call of one account: %v", refused)
	}
	other, _ := enter("8")
	if other == nil {
		t.Fatal("another account waits for it")
	}
	if third, refused := enter("9"); third != nil || !refused.busy {
		t.Errorf("more than the whole: %v", refused)
	}
	cancel()
	<-waited
	leave()
	other()
	if len(l.queues) != 0 {
		t.Errorf("left behind: %v", l.queues)
	}
}

func (l *limits) inside(key queueKey) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.queues[key]; q != nil {
		return q.inside
	}
	return 0
}

func TestLimits_TimeThatIsUsedUpComesBack(t *testing.T) {
	l := newLimits(0)
	now := time.Now()
	l.now = func() time.Time { return now }
	spend := func(account string, d time.Duration) bool {
		leave, _ := l.enter(t.Context(), ordinaryCall, account)
		if leave == nil {
			return false
		}
		now = now.Add(d)
		leave()
		return true
	}
	for range 1000 { // one after the other
		if !spend("7", time.Second) {
			t.Fatal("whoever sends one call after the other is held")
		}
	}
	l.charge("7", timeBurst.Seconds()+3)
	_, refused := l.enter(t.Context(), ordinaryCall, "7")
	if refused.after < 3*time.Second || refused.after > 5*time.Second || refused.busy {
		t.Errorf("refused %v", refused)
	}
	if !spend("8", 0) || !spend("", 0) {
		t.Error("another pays for it")
	}
	now = now.Add(refused.after)
	if !spend("7", 0) {
		t.Error("it did not come back")
	}
}

func TestReplay_OpenRequestsOfAnAccountAreBounded(t *testing.T) {
	w := newWorld(t)
	w.exec(t, `INSERT INTO walhook.account (id, parent) VALUES ('8', '7')`)
	token, below := w.token(t, "7", `{"data":{"include_subaccounts":true}}`), w.token(t, "8", "")
	path := "/v2/accounts/7/webhooks/" + w.webhook(t, token, "7", "") + "/replay"
	other := "/v2/accounts/7/webhooks/" + w.webhook(t, token, "7", "") + "/replay"
	const body = `{"data":{"since":"2026-01-01T00:00:00Z"}}`
	statuses := map[int]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for n := range 60 {
		all.Go(func() {
			r := w.call(t, token, "POST", []string{path, other}[n%2], body)
			mu.Lock()
			defer mu.Unlock()
			statuses[r.status]++
			if r.status == 429 && r.header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
		})
	}
	all.Wait()
	for range 20 {
		statuses[w.call(t, token, "POST", path, body).status]++
	}
	if statuses[202] != admin.MaxOpenRequests || statuses[202]+statuses[429] != 80 {
		t.Errorf("answers %v, want %d times 202 and else 429", statuses, admin.MaxOpenRequests)
	}
	if open := one[int](t, w, "SELECT count(*) FROM walhook.request WHERE done_at IS NULL"); open != admin.MaxOpenRequests {
		t.Errorf("%d under way", open)
	}
	w.want(t, 202, adminToken, "POST", path, body)
	w.want(t, 202, below, "POST", "/v2/accounts/8/webhooks/"+w.webhook(t, below, "8", "")+"/replay", body)
	w.exec(t, "UPDATE walhook.request SET done_at = now()")
	w.want(t, 202, token, "POST", path, body)
	for _, rate := range []string{"0", "-1", "1e-300", "0.0001", "1e300"} {
		w.want(t, 400, token, "POST", path, `{"data":{"since":"2026-01-01T00:00:00Z","rate":`+rate+`}}`)
	}
}

// Whatever takes long answers that it did, and when to try again.
func TestReads_ThatTakeTooLongAreGivenUp(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	w.webhook(t, token, "7", "")
	tx, err := w.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(t.Context()))
	if _, err := tx.Exec(t.Context(), "LOCK TABLE walhook.dead_letter IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r := w.want(t, 503, token, "GET", "/v2/accounts/7/webhooks/dead", "")
	if r.header.Get("Retry-After") == "" || time.Since(began) > 10*time.Second {
		t.Errorf("after %s: %v", time.Since(began), r.header)
	}
}

func TestTry_IsBoundedForAHostAcrossAccounts(t *testing.T) {
	limit := newTestLimit()
	now := time.Now()
	limit.now = func() time.Time { return now }
	for n := range hostTestBurst {
		if wait := limit.take(fmt.Sprint("account ", n), "example.com"); wait != 0 {
			t.Fatalf("test %d waits %s", n, wait)
		}
	}
	if wait := limit.take("another", "example.com"); wait <= 0 || wait > testEvery {
		t.Errorf("one more waits %s", wait)
	}
	if wait := limit.take("another", "example.org"); wait != 0 {
		t.Errorf("another host waits %s", wait)
	}
	for range testBurst - 1 {
		limit.take("another", "example.net")
	}
	if wait := limit.take("another", "example.edu"); wait <= 0 {
		t.Error("an account goes on with another host")
	}
	now = now.Add(testEvery)
	if wait := limit.take("another", "example.edu"); wait != 0 {
		t.Errorf("it waits %s although its time is over", wait)
	}
}
