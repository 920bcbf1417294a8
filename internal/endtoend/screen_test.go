package endtoend

import (
	"io"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"walhook/internal/pgtest"
)

// window is a terminal with a program in it.
type window struct {
	cmd  *exec.Cmd
	keys io.Writer
	read chan struct{} // closed when the program has ended and all is read
	output
}

// output is what a running program has written so far.
type output struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func openWindow(t *testing.T, cmd *exec.Cmd, environ ...string) *window {
	t.Helper()
	cmd.Env = append(cmd.Env, environ...)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	w := &window{cmd: cmd, keys: tty, read: make(chan struct{})}
	go func() {
		defer close(w.read)
		_, _ = io.Copy(w, tty) // ends with an error when the program is gone
	}()
	return w
}

func (w *window) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := io.WriteString(w.keys, keys); err != nil {
		t.Fatal(err)
	}
}

// end waits for the program and returns what is in the window after the screen.
func (w *window) end(t *testing.T) string {
	t.Helper()
	err := w.cmd.Wait()
	<-w.read
	text := w.String()
	if err != nil {
		t.Fatalf("%v\n%q", err, text)
	}
	i := strings.LastIndex(text, leaveScreen)
	if i < 0 {
		t.Fatalf("no screen, or one that is not left: %q", text)
	}
	return escapes.ReplaceAllString(text[i:], "")
}

const (
	enterScreen = "\x1b[?1049h"
	leaveScreen = "\x1b[?1049l"
	ctrlC       = "\x03"
)

var escapes = regexp.MustCompile(`\x1b\[[0-9;?]*[a-zA-Z]`)

// Ctrl-C ends the demo with its summary, whatever it does at that moment, and what
// somebody types meanwhile is not in the way.
func TestDemo_EndsWithItsSummaryOnCtrlC(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ when, want string }{
		"while it starts":   {"starting a throwaway PostgreSQL", "while"},
		"while it delivers": {"LATEST ATTEMPTS", "early"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, temp := demoCommand(t, "--duration", "1m")
			w := openWindow(t, cmd, "TERM=xterm-256color")
			eventually(t, time.Minute, func() bool { return strings.Contains(w.String(), c.when) })
			w.press(t, "typed\r"+ctrlC)
			left := w.end(t)
			if !strings.Contains(left, "events expected") || !strings.Contains(left, "out of order         0") {
				t.Errorf("no summary: %s", left)
			}
			if !strings.Contains(left, "A signal ended the demo "+c.want) {
				t.Errorf("not told that it ended early: %s", left)
			}
			if text := w.String(); !strings.Contains(text, enterScreen) || strings.Contains(text, "typed") {
				t.Errorf("%q", text)
			}
			for line := range strings.Lines(left) {
				if n := len([]rune(strings.TrimRight(line, "\r\n"))); n > 80 {
					t.Errorf("%d columns: %s", n, line)
				}
			}
			wantNothingLeft(t, temp)
		})
	}
}

// Without a terminal that can show a screen the demo prints lines, without colours. It
// ends with its summary there, too, and leaves nothing behind.
func TestDemo_PrintsLinesElsewhere(t *testing.T) {
	t.Parallel()
	t.Run("in a pipe", func(t *testing.T) {
		t.Parallel()
		cmd, temp := demoCommand(t, "--duration", "1m")
		cmd.Env = append(cmd.Env, "TERM=xterm-256color")
		var out output
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		progress := regexp.MustCompile(`(?m)^\d+ s of 1m0s: \d+ transactions? committed, \d+ events? delivered`)
		eventually(t, time.Minute, func() bool { return progress.MatchString(out.String()) })
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if text := out.String(); err != nil || strings.Contains(text, "\x1b") || !strings.Contains(text, "· starting a throwaway PostgreSQL") || !strings.Contains(text, "events expected") {
			t.Errorf("%v: %q", err, text)
		}
		wantNothingLeft(t, temp)
	})
	t.Run("on a dumb terminal", func(t *testing.T) {
		t.Parallel()
		cmd, temp := demoCommand(t)
		w := openWindow(t, cmd, "TERM=dumb")
		eventually(t, time.Minute, func() bool { return strings.Contains(w.String(), "· starting a throwaway PostgreSQL") })
		w.press(t, ctrlC)
		err := cmd.Wait()
		<-w.read
		if text := w.String(); err != nil || strings.Contains(text, "\x1b") || !strings.Contains(text, "events expected") {
			t.Errorf("%v: %q", err, text)
		}
		wantNothingLeft(t, temp)
	})
}

// status --watch shows one status in one place, and leaves the latest when it ends.
func TestStatus_WatchesOnAScreen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t), func(int) string { return "https://example.com/hook" })
	screen := openWindow(t, childCommand(t, "status", "--outbox", w.db.URL, "--watch", "--every", "1s"), "TERM=xterm", "NO_COLOR=yes")
	eventually(t, 20*time.Second, func() bool { return strings.Contains(screen.String(), "dead letters") })
	screen.press(t, ctrlC)
	left := screen.end(t)
	if !strings.Contains(left, "backlog") || !strings.Contains(left, "endpoints") {
		t.Errorf("no status is left: %q", left)
	}
	if colour := regexp.MustCompile(`\x1b\[[0-9;]*3[0-9][;m]`).FindString(screen.String()); colour != "" {
		t.Errorf("a colour although NO_COLOR is set: %q", colour)
	}
}
