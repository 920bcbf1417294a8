package endtoend

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"walhook/internal/chaos"
)

// actor is one walhook process that is killed and started again. Its log and
// its links live through that. One goroutine at a time commands it.
type actor struct {
	name  string
	args  []string
	of    string         // the program; "" is the one under test
	links []*chaos.Proxy // between it and PostgreSQL
	logs  string         // file of all its lives

	cmd    *exec.Cmd
	ended  chan struct{} // closed when the present life is over
	err    error         // how it ended; valid then
	ending atomic.Bool   // by us
}

func newActor(t *testing.T, name string, args ...string) *actor {
	t.Helper()
	a := &actor{name: name, args: append([]string{"run", "--listen", "off"}, args...), logs: filepath.Join(t.TempDir(), name+".log")}
	t.Cleanup(func() {
		if a.cmd != nil {
			a.end(syscall.SIGKILL)
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, a.tail(t))
		}
	})
	return a
}

// link is a database's URL through a proxy of the actor's own.
func (a *actor) link(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	proxy := newProxy(t, u.Host)
	a.links = append(a.links, proxy)
	u.Host = proxy.Addr()
	return u.String()
}

func newProxy(t *testing.T, target string) *chaos.Proxy {
	t.Helper()
	proxy, err := chaos.NewProxy(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	return proxy
}

// start begins a life. One that ends unasked fails the test.
func (a *actor) start(t *testing.T) error {
	log, err := os.OpenFile(a.logs, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := childCommandOf(t, cmp.Or(a.of, binary), a.args...)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	a.ending.Store(false)
	a.cmd, a.ended = cmd, ended
	go func() {
		a.err = cmd.Wait()
		if !a.ending.Load() && t.Context().Err() == nil {
			t.Errorf("%s ended by itself: %v", a.name, a.err)
		}
		close(ended)
	}()
	return nil
}

func (a *actor) signal(s syscall.Signal) error { return a.cmd.Process.Signal(s) }

// end sends a signal that ends the process and waits until it has. It answers
// how it ended.
func (a *actor) end(s syscall.Signal) error {
	a.ending.Store(true)
	if s == syscall.SIGKILL {
		_ = a.cmd.Process.Kill()
	} else {
		_ = a.signal(s) // fails when it has ended already
	}
	<-a.ended
	return a.err
}

// stop ends a process as an operator does: it must take its leave without
// fault, and in time.
func (a *actor) stop(t *testing.T) {
	t.Helper()
	late := time.AfterFunc(time.Minute, func() {
		t.Errorf("%s does not end after SIGTERM", a.name)
		_ = a.cmd.Process.Kill()
	})
	defer late.Stop()
	if err := a.end(syscall.SIGTERM); err != nil {
		t.Errorf("%s after SIGTERM: %v", a.name, err)
	}
}

// tail is the end of the log; the whole is kept where a person can look.
func (a *actor) tail(t *testing.T) string {
	text, err := os.ReadFile(a.logs)
	if err != nil {
		return err.Error()
	}
	kept, err := os.CreateTemp("", "walhook-"+strings.ReplaceAll(t.Name(), "/", "-")+"-"+a.name+"-*.log")
	if err == nil {
		_, err = kept.Write(text)
		_ = kept.Close()
		return fmt.Sprintf("(all of it in %s, %v)\n%s", kept.Name(), err, text[max(len(text)-3000, 0):])
	}
	return err.Error()
}

// said counts the lines of the log that hold a text.
func (a *actor) said(t *testing.T, text string) int {
	t.Helper()
	log, err := os.ReadFile(a.logs)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Count(string(log), text)
}
