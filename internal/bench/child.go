package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Program is walhook's own binary. The benchmark starts it as an operator would, and as
// its helper processes.
type Program struct {
	Path string
	// Helper is the hidden command of helper processes; the helper's name follows it
	// (see [Serve]).
	Helper []string
}

// child is a process that we started. done is closed when it has ended; err is
// valid from then on.
type child struct {
	cmd  *exec.Cmd
	name string
	log  string // the file of its standard error
	done chan struct{}
	err  error
}

// start runs the binary with additional environment and its standard error in a file of
// dir. On Linux the kernel ends it when this process dies.
func (p Program) start(dir, name string, environ []string, in io.Reader, out io.Writer, args ...string) (*child, error) {
	c := &child{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(c.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()
	c.cmd = exec.Command(p.Path, args...)
	c.cmd.Env = append(ownEnviron(), environ...)
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = in, out, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches only this process
	endWithParent(c.cmd.SysProcAttr)
	started := make(chan error)
	go func() {
		// For the kernel the parent is the thread, so this thread must live as long as
		// the child.
		runtime.LockOSThread()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			c.err = c.cmd.Wait()
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// ownEnviron returns our environment without the settings of walhook and of PostgreSQL's
// clients, which are for other databases.
func ownEnviron() []string {
	var environ []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "WALHOOK_") && !strings.HasPrefix(entry, "PG") {
			environ = append(environ, entry)
		}
	}
	return environ
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// failed returns the error of a process that has ended by itself; nil while it runs.
func (c *child) failed() error {
	select {
	case <-c.done:
		return fmt.Errorf("%s ended: %w%s", c.name, errors.Join(c.err), c.lastWords())
	default:
		return nil
	}
}

// lastWords returns the end of the process's log.
func (c *child) lastWords() string {
	text, err := os.ReadFile(c.log)
	if err != nil || len(bytes.TrimSpace(text)) == 0 {
		return ""
	}
	const most = 2000
	return "; it said: …" + string(text[max(len(text)-most, 0):])
}

const stopWithin = 30 * time.Second

// stop asks the process to end, as an operator does, and waits for it.
func (c *child) stop() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended
	select {
	case <-c.done:
	case <-time.After(stopWithin):
		c.kill()
		return fmt.Errorf("stop %s: it still runs after %s%s", c.name, stopWithin, c.lastWords())
	}
	if c.err != nil {
		return fmt.Errorf("stop %s: %w%s", c.name, c.err, c.lastWords())
	}
	return nil
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// wait waits for a process that ends by itself.
func (c *child) wait(ctx context.Context) error {
	select {
	case <-c.done:
	case <-ctx.Done():
		c.kill()
		return context.Cause(ctx)
	}
	if c.err != nil {
		return fmt.Errorf("%s: %w%s", c.name, c.err, c.lastWords())
	}
	return nil
}

// cpu returns the CPU time of an ended process, in seconds.
func (c *child) cpu() float64 {
	return (c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()).Seconds()
}

// helper is a child that answers questions, JSON both ways. It ends when its
// standard input does.
type helper struct {
	*child
	in     *json.Encoder
	closes io.Closer
	out    *json.Decoder
}

// help starts the named helper.
func (p Program) help(dir, name string) (*helper, error) {
	in, questions, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answers, out, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close(), questions.Close())
	}
	c, err := p.start(dir, name, nil, in, out, append(p.Helper[:len(p.Helper):len(p.Helper)], name)...)
	err = errors.Join(err, in.Close(), out.Close())
	if err != nil {
		return nil, errors.Join(err, questions.Close(), answers.Close())
	}
	return &helper{child: c, in: json.NewEncoder(questions), closes: questions, out: json.NewDecoder(answers)}, nil
}

// ask sends a question and waits for its answer.
func (h *helper) ask(ctx context.Context, question, answer any) error {
	stop := context.AfterFunc(ctx, func() { _ = h.cmd.Process.Kill() })
	defer stop()
	err := h.in.Encode(question)
	if err == nil {
		err = h.out.Decode(answer)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("ask %s: %w%s", h.name, err, h.lastWords())
	}
	return nil
}

// end closes the helper's standard input and waits for it.
func (h *helper) end(ctx context.Context) error {
	_ = h.closes.Close()
	return h.wait(ctx)
}
