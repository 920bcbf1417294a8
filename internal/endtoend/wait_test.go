package endtoend

import (
	"context"
	"net/http"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen and has no limit of its
// own: a busy machine takes many times as long as an idle one.
const patience = 90 * time.Second

// eventually polls: what it waits for happens in other processes. It waits for
// patience at least; a test of a limit measures the time.
func eventually(t testing.TB, within time.Duration, done func() bool) {
	t.Helper()
	within = max(within, patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(within)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s", within)
		}
	}
}

// awaitReady waits until the walhook that listens there is ready.
func awaitReady(t testing.TB, address string) {
	t.Helper()
	eventually(t, 30*time.Second, func() bool {
		response, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// linger waits; it is false when ctx ended first.
func linger(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
