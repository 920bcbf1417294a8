package main

import (
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// childEnv makes this test's binary walhook itself (see TestMain).
const childEnv = "TEST_AS_WALHOOK=1"

// childProcess is walhook in a process of its own.
type childProcess struct {
	cmd  *exec.Cmd
	logs string // file that its standard error goes to
}

func childCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), childEnv)
	return cmd
}

// mustRun runs a command to its end and answers what it printed.
func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	var errOut strings.Builder
	cmd := childCommand(t, args...)
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("walhook %s: %v\n%s", strings.Join(args, " "), err, errOut.String())
	}
	return strings.TrimSpace(string(out))
}

func startChild(t *testing.T, args ...string) *childProcess {
	t.Helper()
	return startChildWith(t, nil, args...)
}

// startChildWith adds to the child's environment.
func startChildWith(t *testing.T, environ []string, args ...string) *childProcess {
	t.Helper()
	cmd := childCommand(t, args...)
	cmd.Env = append(cmd.Env, environ...)
	return startCommand(t, cmd, args)
}

func startCommand(t *testing.T, cmd *exec.Cmd, args []string) *childProcess {
	t.Helper()
	p := &childProcess{cmd: cmd, logs: filepath.Join(t.TempDir(), "log")}
	log, err := os.Create(p.logs)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd.Stderr = log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil { // the test ended before it
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("log of walhook %s:\n%s", strings.Join(args, " "), p.log())
		}
	})
	return p
}

// log is the end of what the process logged.
func (p *childProcess) log() string {
	text, _ := os.ReadFile(p.logs)
	return string(text[max(len(text)-4000, 0):])
}

// kill ends a process that must be alive.
func (p *childProcess) kill(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Kill() // what came of it, Wait tells
	_ = p.cmd.Wait()
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() {
		t.Errorf("walhook ended by itself before it was killed: %v", p.cmd.ProcessState)
	}
}

// stop asks the process to end, which it must do by itself and without fault.
func (p *childProcess) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// exitCodeOf is the exit code of a command that failed; -1 for a signal.
func exitCodeOf(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}

// withUser is a database's URL for another role.
func withUser(t *testing.T, database, user, password string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}
