package outbox

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"sync"
	"testing"

	"walhook/schemas"
)

// wire lies between a store and its server and counts the round trips of each connection:
// the server ends each with ReadyForQuery (PostgreSQL manual, Message Flow).
type wire struct {
	tb   testing.TB
	open sync.WaitGroup

	mu    sync.Mutex
	trips map[io.Reader]int64 // guarded by mu: by connection, since the last reset
}

func (w *wire) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.trips)
}

// most is how many the busiest connection has made. Another one wakes senders meanwhile.
func (w *wire) most() (n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, trips := range w.trips {
		n = max(n, trips)
	}
	return n
}

func watchWire(tb testing.TB) *wire { return &wire{tb: tb, trips: map[io.Reader]int64{}} }

// through returns a URL by which the server is reached through w.
func (w *wire) through(server string) string {
	w.tb.Helper()
	u, err := url.Parse(server)
	if err != nil {
		w.tb.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.tb.Fatal(err)
	}
	to := u.Host
	w.tb.Cleanup(func() { _ = listener.Close(); w.open.Wait() })
	w.open.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			w.open.Go(func() { w.join(client, to) })
		}
	})
	u.Host = listener.Addr().String()
	return u.String()
}

func (w *wire) join(client net.Conn, to string) {
	server, err := net.Dial("tcp", to)
	if err != nil {
		_ = client.Close()
		return
	}
	w.open.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	w.count(server, client)
	_ = client.Close()
}

// count hands on what the server says.
func (w *wire) count(server io.Reader, client io.Writer) {
	in, out := bufio.NewReaderSize(server, 64<<10), bufio.NewWriterSize(client, 64<<10)
	for {
		header := make([]byte, 5)
		if _, err := io.ReadFull(in, header); err != nil {
			return
		}
		if header[0] == 'Z' {
			w.mu.Lock()
			w.trips[server]++
			w.mu.Unlock()
		}
		_, _ = out.Write(header)
		if _, err := io.CopyN(out, in, int64(binary.BigEndian.Uint32(header[1:]))-4); err != nil {
			return
		}
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}

// least is the smallest number of round trips of several runs: the pool asks a connection
// that was idle for a second whether it still is one.
func (w *wire) least(run func()) int64 {
	least := int64(math.MaxInt64)
	for range 5 {
		w.reset()
		run()
		least = min(least, w.most())
	}
	return least
}

// At ordinary rates an append is one round trip, and so is a settlement.
func TestRoundTrips_OneForEachAppendAndSettlement(t *testing.T) {
	wire := watchWire(t)
	base := newWorld(t)
	base.open(t, func(c *Config) { c.URL = wire.through(c.URL) })
	f := newFeedIn(t, base)
	f.commit(t, account(7))
	session, err := f.store.Join(t.Context(), "test", lease)
	if err != nil {
		t.Fatal(err)
	}
	id := 0
	appends := func(n int) func() {
		return func() {
			changes := make([]schemas.Change, n)
			for i := range changes {
				id++
				changes[i] = dids.Insert(id, 7, "312")
			}
			f.commit(t, changes...)
		}
	}
	updates := func() { f.commit(t, dids.Update(row(1, 7, "312"), row(1, 7, fmt.Sprint("n", id)))) }
	settles := func(n int) func() {
		return func() {
			batch := make([]Settlement, n)
			for i := range batch {
				id++
				batch[i] = delivered(Event{ID: int64(id), Endpoint: 1, Revision: 1, Record: "dids:1"})
			}
			f.settle(t, session, batch...)
		}
	}
	for _, one := range []struct {
		name string
		run  func()
	}{
		{"an append of one event", appends(1)},
		{"an append of three", appends(3)},
		{"an append of as many as are inserted", appends(fewRows)},
		{"an append of an update", updates},
		{"an idle advance", func() {
			f.append(t, schemas.Batch{Position: schemas.Position{Commit: f.commitLSN, Ordinal: 1}, Flush: f.commitLSN + 8})
		}},
		{"a settlement of one", settles(1)},
		{"a settlement of twenty", settles(20)},
	} {
		one.run() // prepares its statements
		if n := wire.least(one.run); n != 1 {
			t.Errorf("%s: %d round trips", one.name, n)
		}
	}

	// An edit of a webhook costs those that meet it one each, and is seen at once.
	f.webhook(t, "7", "w1", "hook = 'all'")
	before := f.count(t, "event")
	appends(1)()
	if n := f.count(t, "event") - before; n != 2 {
		t.Errorf("%d events, want one for the webhook as well", n)
	}
	for range followsFor {
		appends(1)()
	}
	if n := wire.least(appends(1)); n != 1 {
		t.Errorf("%d round trips %d appends after an edit", n, followsFor)
	}
}
