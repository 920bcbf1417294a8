package main

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// mainChildEnv makes this test binary walhook, with these arguments.
const mainChildEnv = "TEST_WALHOOK_MAIN"

func TestMainChild(t *testing.T) {
	line := os.Getenv(mainChildEnv)
	if line == "" {
		t.Skip("a process of TestInit_CtrlCEndsAQuestion")
	}
	os.Args = append([]string{"walhook"}, strings.Fields(line)...)
	main()
}

func TestInit_CtrlCEndsAQuestion(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string][][2]string{ // what is shown, and what is typed then
		"the first question": {{"Source:", "\x03"}},
		"the password":       {{"Source:", "postgres://u@127.0.0.1:1/d\n"}, {"Password of u", "\x03"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			command := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestMainChild$")
			command.Env = append(os.Environ(), mainChildEnv+"=init --dir "+dir)
			tty, err := pty.StartWithSize(command, &pty.Winsize{Rows: 24, Cols: 80})
			if err != nil {
				t.Fatal(err)
			}
			defer tty.Close()
			out := &terminalOutput{}
			go func() { _, _ = io.Copy(out, tty) }() // ends with an error when the process is gone
			ended := make(chan error, 1)
			go func() { ended <- command.Wait() }()
			for _, step := range keys {
				for deadline := time.Now().Add(90 * time.Second); !strings.Contains(out.String(), step[0]); time.Sleep(10 * time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("no %s: %q", step[0], out.String())
					}
				}
				if _, err := tty.WriteString(step[1]); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case err = <-ended:
			case <-time.After(90 * time.Second):
				_ = command.Process.Signal(syscall.SIGKILL)
				t.Fatalf("it does not end: %q", out.String())
			}
			if files, readErr := os.ReadDir(dir); err != nil || readErr != nil || len(files) > 0 {
				t.Errorf("%v, %v, files %v: %q", err, readErr, files, out.String())
			}
		})
	}
}
