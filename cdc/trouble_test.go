package cdc

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// Errors of the network name ports, so that each has another text.
func TestTrouble_IsLoggedWhenItBeginsAndEveryMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		trouble := newTrouble()
		outage := func(d time.Duration) (lines int) {
			for range int(d / (5 * time.Second)) {
				trouble.add(zap.New(core), fmt.Errorf("read tcp 127.0.0.1:%d: reset", time.Now().UnixNano()), 5*time.Second)
				time.Sleep(5 * time.Second)
			}
			trouble.end()
			return len(logs.TakeAll())
		}
		if n := outage(10 * time.Minute); n < 10 || n > 13 {
			t.Errorf("%d lines for ten minutes without a connection", n)
		}
		if n := outage(5 * time.Second); n != 1 {
			t.Errorf("%d lines for the next fault, want 1", n)
		}
	})
}
