package endtoend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"walhook/internal/loopback"
)

// natsGate stands between walhook and a server: closed, it passes nothing on and keeps every
// connection open, like a server that hangs.
type natsGate struct {
	address string
	mu      sync.Mutex
	open    chan struct{} // closed while it passes
}

func newNATSGate(t *testing.T, to int) *natsGate {
	t.Helper()
	g := &natsGate{open: make(chan struct{})}
	close(g.open)
	listener, err := net.Listen("tcp", loopback.Address(t))
	if err != nil {
		t.Fatal(err)
	}
	g.address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", to))
			if err != nil {
				client.Close()
				continue
			}
			go g.pass(ctx, client, server)
			go g.pass(ctx, server, client)
		}
	}()
	return g
}

func (g *natsGate) pass(ctx context.Context, from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		g.mu.Lock()
		open := g.open
		g.mu.Unlock()
		select {
		case <-open:
		case <-ctx.Done():
			return
		}
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if err != io.EOF {
				return
			}
			return
		}
	}
}

func (g *natsGate) shut() (reopen func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		close(g.open)
	}
}

// A stream with three replicas, while its leader is killed, a server hangs, the stream is
// full, deleted and made again, and the credentials are revoked: the streams together hold
// every event of the outbox, those of a record in order, and none twice.
func TestNATSFeed_LosesNothing(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "login")
	writeFile(t, file, "walhook:right")
	users := func(password string) []*server.User {
		return []*server.User{{Username: "walhook", Password: password}, {Username: "operator", Password: "operator"}}
	}
	c := newNATSCluster(t, 3, func(o *server.Options) { o.Users, o.Cluster.NoAdvertise = users("right"), true })
	js := c.client(t, nats.UserInfo("operator", "operator"))
	roomy := jetstream.StreamConfig{Discard: jetstream.DiscardNew, Duplicates: 10 * time.Minute}
	c.stream(t, js, roomy)
	var gates []*natsGate
	var urls []string
	for _, o := range c.options {
		g := newNATSGate(t, o.Port)
		gates, urls = append(gates, g), append(urls, "nats://"+g.address)
	}
	w := newOperatorWorld(t, "--nats-credentials", file, "--retry-schedule", strings.Repeat("500ms,", 1000)+"1s", "--attempt-timeout", "5s")
	w.feeds(t, "add", "stream", "--url", strings.Join(urls, ","))

	// The carrier at work.
	const records = 40
	writer := w.db.Connect(t)
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				stopped <- nil
				return
			case <-time.After(5 * time.Millisecond):
			}
			if _, err := writer.Exec(t.Context(), `INSERT INTO dids (id, user_id, number) VALUES ($1, $2, $3)
				ON CONFLICT (id) DO UPDATE SET number = excluded.number, user_id = excluded.user_id`, n%records, 7+rand.IntN(3), fmt.Sprint(n)); err != nil {
				stopped <- err
				return
			}
		}
	}()

	// received is what streams held that are gone.
	var received []natsEvent
	conn := w.db.Connect(t)
	delivered := func() int {
		var n int
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM walhook.attempt WHERE outcome = 'delivered'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	flows := func() {
		t.Helper()
		before := delivered()
		eventually(t, 3*time.Minute, func() bool { return delivered() >= before+100 })
	}
	refuses := func(reason string) {
		t.Helper()
		count := func() (n int) {
			if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM walhook.attempt WHERE reason = $1", reason).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		before := count()
		eventually(t, patience, func() bool { return count() > before })
	}
	full := func() (again func()) {
		small := roomy
		small.MaxMsgs = 1
		c.stream(t, js, small)
		return func() { c.stream(t, js, roomy) }
	}
	troubles := []struct {
		name string
		run  func()
	}{
		{"the leader is killed", func() {
			node := c.leader(t, js, "WALHOOK")
			c.stop(node)
			flows()
			c.start(t, node)
		}},
		{"a server hangs", func() {
			var reopen []func()
			node := rand.IntN(len(gates))
			reopen = append(reopen, gates[node].shut())
			flows()
			for _, open := range reopen {
				open()
			}
		}},
		{"every server hangs", func() {
			var reopen []func()
			for _, g := range gates {
				reopen = append(reopen, g.shut())
			}
			refuses("nats_disconnected")
			for _, open := range reopen {
				open()
			}
		}},
		{"the stream is full", func() {
			again := full()
			refuses("nats_stream_full")
			again()
		}},
		{"the stream is deleted and made again", func() {
			full() // so that it takes nothing between these two
			received = append(received, held(t, js, "WALHOOK")...)
			eventually(t, patience, func() bool { // as in held
				err := js.DeleteStream(t.Context(), "WALHOOK")
				return err == nil || errors.Is(err, jetstream.ErrStreamNotFound)
			})
			refuses("nats_no_stream")
			c.stream(t, js, roomy)
		}},
		{"the credentials are revoked", func() {
			reload := func(password string) {
				for i, o := range c.options {
					o.Users = users(password)
					if err := c.servers[i].ReloadOptions(o.Clone()); err != nil {
						t.Fatal(err)
					}
				}
			}
			reload("another")
			refuses("nats_refused")
			writeFile(t, file, "walhook:another")
			flows()
			reload("right")
			writeFile(t, file, "walhook:right")
		}},
	}
	flows()
	for began, round := time.Now(), 0; round == 0 || time.Since(began) < *natsFor; round++ {
		for _, trouble := range troubles {
			at := time.Now()
			trouble.run()
			flows()
			t.Logf("%s: flows again after %s", trouble.name, time.Since(at).Round(100*time.Millisecond))
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Minute, func() bool {
		var rest int
		err := conn.QueryRow(t.Context(), `SELECT count(*) FROM walhook.event e WHERE NOT EXISTS (
			SELECT FROM walhook.attempt a WHERE a.endpoint = e.endpoint AND a.event_id = e.id AND a.outcome = 'delivered')`).Scan(&rest)
		return err == nil && rest == 0
	})
	compareStream(t, conn, append(received, held(t, js, "WALHOOK")...))
}

// compareStream compares what streams held with the event log.
func compareStream(t *testing.T, conn *pgx.Conn, got []natsEvent) {
	t.Helper()
	rows, err := conn.Query(t.Context(), "SELECT webhook_id, record, account, schema, type, body FROM walhook.event ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	type logged struct {
		place   int
		record  string
		subject string
		account string
		body    string
	}
	want := map[string]logged{}
	var id, record, account, schema, typ string
	var body []byte
	if _, err := pgx.ForEachRow(rows, []any{&id, &record, &account, &schema, &typ, &body}, func() error {
		want[id] = logged{len(want), record, "walhook." + account + "." + schema + "." + typ, account, string(body)}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	last, seen := map[string]int{}, map[string]int{}
	for _, e := range got {
		of, known := want[e.id]
		if !known || e.subject != of.subject || e.account != of.account || e.body != of.body {
			t.Errorf("the stream holds %+v, want %+v", e, of)
			continue
		}
		if seen[e.id]++; seen[e.id] > 1 {
			continue
		}
		if before, some := last[of.record]; some && of.place < before {
			t.Errorf("%s arrived after a later event of %s", e.id, of.record)
		}
		last[of.record] = of.place
	}
	lost, twice := 0, 0
	for id := range want {
		switch {
		case seen[id] == 0:
			lost++
		case seen[id] > 1:
			twice++
		}
	}
	t.Logf("%d events, %d lost, %d twice", len(want), lost, twice)
	if lost > 0 || twice > 0 || len(want) < 500 {
		t.Errorf("of %d events %d are lost and %d came twice", len(want), lost, twice)
	}
}
