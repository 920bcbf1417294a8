package sender

import (
	"testing"
	"time"
)

func TestAttemptLimiter_HoldsBackFastAttemptsAndNotThoseThatWait(t *testing.T) {
	p := newAttemptLimiter()
	now := time.Now()
	var numbers []int64
	for !p.full(now) {
		numbers = append(numbers, p.begin(now))
	}
	if len(numbers) != p.limit {
		t.Fatalf("%d attempts could begin, want %d", len(numbers), p.limit)
	}
	p.end(numbers[3])
	if p.full(now) {
		t.Error("an attempt that ended still counts")
	}
	p.begin(now.Add(fastWindow / 2))
	if !p.full(now.Add(fastWindow - 1)) {
		t.Error("more than the limit may be fast")
	}
	if next := p.next(); !next.Equal(now.Add(fastWindow)) {
		t.Errorf("the next may begin in %s, want %s", next.Sub(now), fastWindow)
	}
	if p.full(now.Add(fastWindow)) || p.fast != 1 {
		t.Errorf("%d count as fast after %s, want the one that began later", p.fast, fastWindow)
	}
	p.end(numbers[0]) // one that was let go of
	if p.fast != 1 {
		t.Errorf("%d count after one ended that did not", p.fast)
	}
	if p.full(now.Add(2*fastWindow)) || p.fast != 0 || p.starts.len() != 0 {
		t.Errorf("%d are fast, %d are remembered, after all are old", p.fast, p.starts.len())
	}
}

func TestAttemptLimiter_NeverCountsMoreThanTheLimitInWhateverOrderTheyEnd(t *testing.T) {
	p := newAttemptLimiter()
	now := time.Now()
	begun := map[int64]bool{}
	for i := range 10_000 { // ended in another order than begun, or never
		now = now.Add(time.Duration(i%7) * 100 * time.Microsecond)
		if !p.full(now) {
			begun[p.begin(now)] = true
		}
		for number := range begun {
			if number%3 != 0 && i%2 == 0 {
				p.end(number)
				delete(begun, number)
			}
			break
		}
		if p.fast < 0 || p.fast > p.limit || p.fast > p.starts.len() {
			t.Fatalf("step %d: %d are fast of %d remembered", i, p.fast, p.starts.len())
		}
	}
}
