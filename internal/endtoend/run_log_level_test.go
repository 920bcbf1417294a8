package endtoend

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRun_ChangesItsLogLevelWhenItIsAsked sends the signal to a process.
func TestRun_ChangesItsLogLevelWhenItIsAsked(t *testing.T) {
	t.Parallel()
	s := newShop(t, 1, func(string) string { return "http://127.0.0.1:9/" })
	process := startChild(t, "run", "--role", "sender", "--outbox", s.outbox.URL, "--listen", "off", "--log-level", "warn")
	says := func(text string) func() bool {
		return func() bool {
			log, _ := os.ReadFile(process.logs)
			return strings.Contains(string(log), text)
		}
	}
	// A process that is still starting would end at the signal.
	eventually(t, 20*time.Second, func() bool { return senders(t, s) == 1 })
	for _, change := range []string{`"from":"warn","to":"debug"`, `"from":"debug","to":"warn"`} {
		if err := process.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, says(change))
	}
	process.stop(t)
}

func senders(t *testing.T, s *shop) (n int) {
	t.Helper()
	conn := s.outbox.Connect(t)
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM walhook.sender").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
