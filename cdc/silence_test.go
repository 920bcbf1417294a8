package cdc

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"walhook/cdc/source"
	"walhook/internal/chaos"
	"walhook/internal/retry"
)

// by leads the reader's connections through another address.
func (w *world) by(t *testing.T, address string) {
	t.Helper()
	u, err := url.Parse(w.cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = address
	w.cfg.URL = u.String()
}

func (w *world) host(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(w.cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func TestReader_NoticesASourceThatHasGoneSilent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	proxy, err := chaos.NewProxy(w.host(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	w.by(t, proxy.Addr())
	core, logs := observer.New(zap.WarnLevel)
	w.log = zap.New(core)
	const silence = 5 * statusEvery
	r := w.start(t, func(r *Reader) { r.silence = silence })
	w.settle(t)
	// Until after it would have given up, had the source not answered it.
	if retry.Pause(t.Context(), silence+3*statusEvery) != nil || look(w.store, func() int { return w.store.taken }) > r.taken+1 || r.State() != Reading {
		t.Fatal("a source that has nothing to say is taken for dead")
	}
	proxy.Set(chaos.Weather{Silent: true})
	eventually(t, "the silence to be noticed", patience, func() bool { return r.State() != Reading })
	stopped := func() []observer.LoggedEntry { return logs.FilterMessageSnippet("reading stopped").All() }
	eventually(t, "a line that says why", patience, func() bool { return len(stopped()) > 0 })
	if why := fmt.Sprint(stopped()[0].ContextMap()["error"]); !strings.Contains(why, fmt.Sprintf("no message for %s", silence)) {
		t.Errorf("another reason: %s", why)
	}
	proxy.Set(chaos.Weather{})
	w.exec(t, "INSERT INTO items VALUES (1, 7, 'x')")
	w.settle(t)
	w.wantIDs(t, 1)
}

// garbler relays connections, and makes a value longer than it is.
func garbler(t *testing.T, target string) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	relay := func(to, from net.Conn) {
		defer to.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			said := bytes.ReplaceAll(buf[:n], []byte("t\x00\x00\x00\x0agarble me!"), []byte("t\x00\x00\x00\xffgarble me!"))
			if _, writeErr := to.Write(said); writeErr != nil || err != nil {
				return
			}
		}
	}
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				near.Close()
				continue
			}
			go relay(far, near)
			go relay(near, far)
		}
	}()
	return listener.Addr().String()
}

func TestReader_EndsAtAMessageThatItCannotReadAndLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	direct := w.cfg.URL
	w.by(t, garbler(t, w.host(t)))
	r := w.start(t)
	w.settle(t)
	w.exec(t, "INSERT INTO items VALUES (1, 7, 'garble me!')", "INSERT INTO items VALUES (2, 7, 'x')")
	err := r.ends(t)
	if fault, ok := errors.AsType[*source.Fault](err); !ok || !strings.Contains(err.Error(), "was unreadable 5 times") || fault.Fix == "" {
		t.Fatalf("ended with %v", err)
	}
	w.wantIDs(t, 0)
	w.cfg.URL = direct
	w.start(t)
	w.settle(t)
	w.wantIDs(t, 2)
}
