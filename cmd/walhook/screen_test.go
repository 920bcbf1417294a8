package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/creack/pty"
)

// screenChildEnv makes this test binary a process with a screen, which ends as it says, once
// there is the file that screenSeenEnv names: what it shows has arrived.
const (
	screenChildEnv = "TEST_WALHOOK_SCREEN"
	screenSeenEnv  = "TEST_WALHOOK_SCREEN_SEEN"
)

func TestScreenChild(t *testing.T) {
	end := os.Getenv(screenChildEnv)
	if end == "" {
		t.Skip("a process of TestScreen_RestoresTheTerminalHoweverItEnds")
	}
	s := openScreen(os.Stdout, end != "line", func(width, height int) string {
		return fmt.Sprintf("a window of %d×%d", width, height)
	})
	if s == nil {
		t.Fatal("no screen on this terminal")
	}
	for {
		if _, err := os.Stat(os.Getenv(screenSeenEnv)); err == nil {
			break
		}
		time.Sleep(repaintEvery / 10)
	}
	switch end {
	case "close", "line":
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		fmt.Println("what follows")
	case "panic":
		go func() { panic("boom in a goroutine of the sender") }()
		select {}
	default:
		var number int
		if _, err := fmt.Sscan(end, &number); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(os.Getpid(), syscall.Signal(number)); err != nil {
			t.Fatal(err)
		}
		select {}
	}
}

// terminalOutput is what a terminal has got so far. It makes the file seen once the window
// is shown.
type terminalOutput struct {
	seen string

	mu   sync.Mutex
	text strings.Builder
}

// ofScreen is the output of a command with a screen.
func ofScreen(t *testing.T, shell *exec.Cmd, end string) *terminalOutput {
	t.Helper()
	out := &terminalOutput{seen: filepath.Join(t.TempDir(), "seen")}
	shell.Env = append(os.Environ(), "TERM=xterm-256color", screenChildEnv+"="+end, screenSeenEnv+"="+out.seen)
	return out
}

func (o *terminalOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.text.Write(p)
	if strings.Contains(o.text.String(), "a window of 80×24") {
		err = errors.Join(err, os.WriteFile(o.seen, nil, 0o600))
	}
	return n, err
}

func (o *terminalOutput) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// The shell of somebody whose walhook ended gets its terminal back: by a clean end, a
// panic in any goroutine and every signal, also those that no process can catch.
func TestScreen_RestoresTheTerminalHoweverItEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{
		"a clean end": "close", "a panic": "panic",
		"SIGKILL": fmt.Sprint(int(syscall.SIGKILL)), "SIGTERM": fmt.Sprint(int(syscall.SIGTERM)),
		"SIGHUP": fmt.Sprint(int(syscall.SIGHUP)), "SIGQUIT": fmt.Sprint(int(syscall.SIGQUIT)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shell := exec.CommandContext(t.Context(), "/bin/sh", "-c", `"$0" -test.run '^TestScreenChild$'; read answer; stty -a`, os.Args[0])
			out := ofScreen(t, shell, end)
			tty, err := pty.StartWithSize(shell, &pty.Winsize{Rows: 24, Cols: 80})
			if err != nil {
				t.Fatal(err)
			}
			defer tty.Close()
			read := make(chan struct{})
			go func() {
				defer close(read)
				_, _ = io.Copy(out, tty) // ends with an error when the shell is gone
			}()
			restored := func() bool {
				text := out.String()
				entered, left := strings.LastIndex(text, ansi.SetModeAltScreenSaveCursor), strings.LastIndex(text, ansi.ResetModeAltScreenSaveCursor)
				hidden, shown := strings.LastIndex(text, ansi.ResetModeTextCursorEnable), strings.LastIndex(text, ansi.SetModeTextCursorEnable)
				words := end != "panic" || strings.LastIndex(text, "boom in a goroutine") > left
				return entered >= 0 && entered < left && hidden < shown && words
			}
			for deadline := time.Now().Add(90 * time.Second); !restored(); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the terminal is not restored: %q", out.String())
				}
			}
			if text := out.String(); !strings.Contains(text, "a window of 80×24") {
				t.Errorf("the screen shows nothing: %q", text)
			}
			if _, err := tty.WriteString("\n"); err != nil {
				t.Fatal(err)
			}
			<-read
			settings := out.String()[strings.LastIndex(out.String(), "speed"):]
			if !strings.Contains(settings, " echo ") || !strings.Contains(settings, "susp = ^Z") {
				t.Errorf("the terminal's settings are not restored: %s", settings)
			}
			_ = shell.Wait()
		})
	}
}

// A line that changes below others is gone when it is closed, and they are still there.
func TestScreen_RemovesItsLine(t *testing.T) {
	t.Parallel()
	shell := exec.CommandContext(t.Context(), "/bin/sh", "-c", `echo above; "$0" -test.run '^TestScreenChild$'`, os.Args[0])
	out := ofScreen(t, shell, "line")
	tty, err := pty.StartWithSize(shell, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	_, _ = io.Copy(out, tty) // ends with an error when the shell is gone
	text := out.String()
	line, erased, after := strings.LastIndex(text, "a window of 80×24"), strings.LastIndex(text, ansi.EraseScreenBelow), strings.Index(text, "what follows")
	if strings.Contains(text, ansi.SetModeAltScreenSaveCursor) || line < 0 || erased < line || after < erased || strings.Contains(text[line:after], "\n") {
		t.Errorf("%q", text)
	}
}

// Files, pipes and terminals that cannot do it get lines.
func TestScreen_NeedsATerminalThatCanShowIt(t *testing.T) {
	t.Parallel()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	master, other, err := pty.Open() // not the terminal that this process belongs to
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer other.Close()
	for name, out := range map[string]io.Writer{"a device": null, "another terminal": other, "no file": &strings.Builder{}, "wrapped": newTerminal(null)} {
		if s := openScreen(out, true, func(int, int) string { return "" }); s != nil {
			t.Errorf("%s: a screen", name)
			_ = s.close()
		}
	}
}
