package endtoend

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"walhook/internal/pgtest"
)

// The exit statuses (docs/CONTRACT.md §5).
const (
	exitOK    = 0
	exitFault = 1
	exitUsage = 2
	exitGap   = 3
)

// binary is the walhook that the tests drive: TestMain builds it.
var binary string

// TestMain builds walhook, runs the tests and stops the server that they share.
func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

// binaryEnv names a walhook that is built already. Fuzzing starts these tests in
// processes of their own, which it kills: they use what the first one built.
const binaryEnv = "TEST_WALHOOK_BINARY"

func testMain(m *testing.M) int {
	if binary = os.Getenv(binaryEnv); binary != "" {
		return pgtest.Main(m)
	}
	folder, err := os.MkdirTemp("", "walhook-endtoend-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	binary = filepath.Join(folder, "walhook")
	// The state of the repository is not what is tested, and costs a second.
	args := []string{"build", "-buildvcs=false", "-o", binary}
	if raceDetector {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "walhook/cmd/walhook")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build walhook: %v\n%s", err, out)
		return 1
	}
	if err := os.Setenv(binaryEnv, binary); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return pgtest.Main(m)
}

// readSources looks at the folders that walhook is built from. The go command keeps
// the result of a test, and makes it again when what the test has read has changed.
var readSources = sync.OnceFunc(func() {
	const folders = "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}"
	list, err := exec.Command("go", "list", "-deps", "-f", folders, "walhook/cmd/walhook").Output()
	if err != nil {
		panic(err)
	}
	for folder := range strings.FieldsSeq(string(list)) {
		if _, err := os.ReadDir(folder); err != nil {
			panic(err)
		}
	}
})

// childProcess is walhook in a process of its own.
type childProcess struct {
	cmd  *exec.Cmd
	logs string // file that its standard error goes to
}

func childCommand(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return childCommandOf(t, binary, args...)
}

// childCommandOf is for a walhook that may be another than this one.
func childCommandOf(t testing.TB, program string, args ...string) *exec.Cmd {
	t.Helper()
	readSources()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = os.Environ()
	return cmd
}

// commandError is a command that failed, with what it wrote to standard error.
type commandError struct {
	exit *exec.ExitError
	text string
}

func (e commandError) Error() string { return e.text }
func (e commandError) Unwrap() error { return e.exit }

// walhook runs a command to its end and returns what it printed. The text of its
// error is what it wrote to standard error.
func walhook(t testing.TB, args ...string) (string, error) {
	t.Helper()
	var errOut strings.Builder
	cmd := childCommand(t, args...)
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = commandError{exit, strings.TrimSpace(errOut.String())}
	}
	return string(out), err
}

// mustRun runs a command to its end, which must be a success, and answers what
// it printed.
func mustRun(t testing.TB, args ...string) string {
	t.Helper()
	out, err := walhook(t, args...)
	if err != nil {
		t.Fatalf("walhook %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(out)
}

func startChild(t testing.TB, args ...string) *childProcess {
	t.Helper()
	return startChildWith(t, nil, args...)
}

// startChildWith adds to the child's environment.
func startChildWith(t testing.TB, environ []string, args ...string) *childProcess {
	t.Helper()
	cmd := childCommand(t, args...)
	cmd.Env = append(cmd.Env, environ...)
	return startCommand(t, cmd, args)
}

func startCommand(t testing.TB, cmd *exec.Cmd, args []string) *childProcess {
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
func (p *childProcess) stop(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// exitCodeOf is the exit code of a command that has ended; -1 for a signal.
func exitCodeOf(err error) int {
	if err == nil {
		return exitOK
	}
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
