package endtoend

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A stream with three replicas, while its leader is killed, a server hangs, no
// acknowledgement arrives, the stream is full, deleted and made again, and the credentials
// are revoked: the streams together hold every event of the outbox, those of a record in
// order, and none twice.
func TestNATSFeed_LosesNothing(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "login")
	writeFile(t, file, "walhook:right")
	users := func(password string) []*server.User {
		return []*server.User{{Username: "walhook", Password: password}, {Username: "operator", Password: "operator"}}
	}
	c := newNATSCluster(t, 3, func(o *server.Options) { o.Users, o.Cluster.NoAdvertise = users("right"), true })
	operator := nats.UserInfo("operator", "operator")
	js := c.client(t, operator)
	roomy := jetstream.StreamConfig{Discard: jetstream.DiscardNew, Duplicates: 10 * time.Minute}
	c.stream(t, js, roomy)
	var gates []*natsGate
	var urls []string
	for _, o := range c.options {
		g := newNATSGate(t, o.Port)
		gates, urls = append(gates, g), append(urls, "nats://"+g.address)
	}
	const attempt = 5 * time.Second
	w := newOperatorWorld(t, "--nats-credentials", file, "--retry-schedule", strings.Repeat("500ms,", 1000)+"1s", "--attempt-timeout", attempt.String())
	w.feeds(t, "add", "stream", "--url", strings.Join(urls, ","))

	work := beginWork(t, w)
	// received is what streams held that are gone.
	var received []natsEvent
	full := func() (again func()) {
		small := roomy
		small.MaxMsgs = 1
		c.stream(t, js, small)
		return func() { c.stream(t, js, roomy) }
	}
	hang := func(shut func(*natsGate) (reopen func()), reason string) {
		var reopen []func()
		for _, g := range gates {
			reopen = append(reopen, shut(g))
		}
		work.refuses(t, reason)
		for _, open := range reopen {
			open()
		}
	}
	troubles := []struct {
		name string
		run  func()
	}{
		{"the leader is killed", func() {
			node := c.leader(t, js, "WALHOOK")
			c.stop(node)
			work.flows(t)
			c.start(t, node)
		}},
		{"a server hangs", func() {
			open := gates[rand.IntN(len(gates))].shut()
			work.flows(t)
			open()
		}},
		{"every server hangs", func() { hang((*natsGate).shut, "nats_disconnected") }},
		{"no acknowledgement arrives", func() { hang((*natsGate).shutBack, "nats_timeout") }}, // of what the stream takes
		{"the stream is full", func() {
			again := full()
			work.refuses(t, "nats_stream_full")
			again()
		}},
		{"the stream is deleted and made again", func() {
			full() // so that it takes nothing between being read and being deleted
			since := work.now(t)
			// What was on its way is in the stream by then, or walhook's attempt has failed.
			time.Sleep(attempt + time.Second)
			received = append(received, held(t, js, "WALHOOK")...)
			eventually(t, patience, func() bool { // as in held
				err := js.DeleteStream(t.Context(), "WALHOOK")
				return err == nil || errors.Is(err, jetstream.ErrStreamNotFound)
			})
			work.refuses(t, "nats_no_stream")
			if n := work.acknowledged(t, since); n > 0 {
				t.Errorf("the full stream took %d events, which no one has read", n)
			}
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
			work.refuses(t, "nats_refused")
			writeFile(t, file, "walhook:another")
			work.flows(t)
			reload("right")
			writeFile(t, file, "walhook:right")
		}},
	}
	again := func() {
		js.Conn().Close()
		js = c.working(t, operator)
	}
	work.flows(t)
	for began, round := time.Now(), 0; round == 0 || time.Since(began) < *natsFor; round++ {
		for _, trouble := range troubles {
			again()
			at := time.Now()
			trouble.run()
			work.flows(t)
			t.Logf("%s at %s: flows again after %s", trouble.name, at.UTC().Format("15:04:05.000"), time.Since(at).Round(100*time.Millisecond))
		}
	}
	work.end(t)
	again()
	compareStream(t, work.conn, append(received, held(t, js, "WALHOOK")...))
}
