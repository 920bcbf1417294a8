package main

import "time"

const (
	// verifyWithin is long enough for a second attempt of every event to a flaky
	// receiver, one after the other. An open breaker of one begins it anew: its open time
	// doubles with each probe that fails, from 10 seconds. That ends at verifyAtMost.
	verifyWithin = time.Minute
	verifyAtMost = 10 * time.Minute
	verifyEvery  = time.Second
	// interruptedWithin is how long somebody waits who wants the demo to end: long
	// enough for what is on its way. What is retried later is then waiting, not lost.
	interruptedWithin = 3 * time.Second
)

// demoWait says for how long the demo waits for what has not arrived.
type demoWait struct {
	began, deadline time.Time
	early           bool // somebody wants the demo to end
}

func newDemoWait(now time.Time) *demoWait {
	return &demoWait{began: now, deadline: now.Add(verifyWithin)}
}

func (w *demoWait) interrupt(now time.Time) {
	w.deadline, w.early = now.Add(interruptedWithin), true
}

// over reports whether the demo waits no longer. At a deadline it asks flakyOpen whether
// the breaker of a flaky receiver is open, behind which events wait that will arrive.
func (w *demoWait) over(now time.Time, flakyOpen func() (bool, error)) (bool, error) {
	if !now.After(w.deadline) {
		return false, nil
	}
	if w.early || now.Sub(w.began) >= verifyAtMost {
		return true, nil
	}
	open, err := flakyOpen()
	if open && err == nil {
		w.deadline = now.Add(verifyWithin)
	}
	return !open, err
}
