package sender

import (
	"testing"
	"time"
)

func TestPace_HoldsBackYoungAttemptsAndNotThoseThatWait(t *testing.T) {
	p := newPace()
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
	p.begin(now.Add(youth / 2))
	if !p.full(now.Add(youth - 1)) {
		t.Error("more than the limit may be young")
	}
	if next := p.next(); !next.Equal(now.Add(youth)) {
		t.Errorf("the next may begin in %s, want %s", next.Sub(now), youth)
	}
	if p.full(now.Add(youth)) || p.young != 1 {
		t.Errorf("%d count as young after %s, want the one that began later", p.young, youth)
	}
	p.end(numbers[0]) // one that was let go of
	if p.young != 1 {
		t.Errorf("%d count after one ended that did not", p.young)
	}
	if p.full(now.Add(2*youth)) || p.young != 0 || p.starts.len() != 0 {
		t.Errorf("%d are young, %d are remembered, after all are old", p.young, p.starts.len())
	}
}

func TestPace_NeverCountsMoreThanTheLimitInWhateverOrderTheyEnd(t *testing.T) {
	p := newPace()
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
		if p.young < 0 || p.young > p.limit || p.young > p.starts.len() {
			t.Fatalf("step %d: %d are young of %d remembered", i, p.young, p.starts.len())
		}
	}
}
