package pgcluster

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// How long clients may take to disconnect at a fast shutdown: where the data is kept, as
// long as a busy machine takes, so that the shutdown is a clean one.
const (
	fastShutdown  = 3 * time.Second
	cleanShutdown = time.Minute
)

// process is a started program of the server. done is closed when it has ended; err is
// valid from then on.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// startProcess starts a program in its own process group, so that Ctrl-C reaches only this
// process, with the cluster's log as its output.
func startProcess(path string, args []string, home *home) (*process, error) {
	log, err := home.openLog()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(path, args...)
	cmd.Dir = home.dir
	cmd.Env = serverEnviron()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: home.account.credential()}
	endWithParent(cmd.SysProcAttr)

	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// For the kernel the parent is the thread, so this thread must live as long as
		// the child.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, home.account.explain(err)
	}
	return p, nil
}

// serverEnviron returns an environment without our PG… variables, with messages in
// English.
func serverEnviron() []string {
	env := []string{"LC_ALL=C"}
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "PG") && !strings.HasPrefix(entry, "LC_") && !strings.HasPrefix(entry, "LANG") {
			env = append(env, entry)
		}
	}
	return env
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// shutdown is PostgreSQL's fast shutdown, then the immediate one, then a kill.
func (p *process) shutdown(fast time.Duration) {
	for _, one := range []struct {
		signal syscall.Signal
		within time.Duration
	}{{syscall.SIGINT, fast}, {syscall.SIGQUIT, fastShutdown}} {
		_ = p.cmd.Process.Signal(one.signal) // fails if it has ended
		select {
		case <-p.done:
			return
		case <-time.After(one.within):
		}
	}
	p.killTree()
}

// killTree kills the process and its children with SIGKILL and waits until all have ended.
// Backends have process groups of their own. So killTree stops the parent, which can then
// start no new ones, and lists its children.
func (p *process) killTree() {
	select {
	case <-p.done:
		return // another process may have its pid by now
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	children := childrenOf(p.pid())
	_ = p.cmd.Process.Kill()
	<-p.done
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, pid := range children {
		for deadline := time.Now().Add(5 * time.Second); alive(pid) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
	}
}
