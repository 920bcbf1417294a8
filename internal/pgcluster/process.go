package pgcluster

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// fastShutdown is how long clients may take to let go before they are cut off.
const fastShutdown = 3 * time.Second

// process is a program of the server's that we started. done is closed when it
// has ended; err is valid from then on.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// startProcess starts a program in a process group of its own, so that the
// terminal's Ctrl-C is ours alone, with the cluster's log as its output.
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
		// The kernel's parent is the thread, not the process: this one must
		// live as long as the child, so it is locked and never given back.
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

// serverEnviron keeps our PG… variables from the server and its messages in
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
func (p *process) shutdown() {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		_ = p.cmd.Process.Signal(signal) // fails when it has ended
		select {
		case <-p.done:
			return
		case <-time.After(fastShutdown):
		}
	}
	p.killTree()
}

// killTree kills the process and its children with SIGKILL and waits until all
// are gone. Backends lead process groups of their own, so the children are
// listed, while the stopped parent can make no new ones.
func (p *process) killTree() {
	select {
	case <-p.done:
		return // and its number may be another's
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
