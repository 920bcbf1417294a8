package endtoend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestNATSFeed_Throughput measures how long a feed takes for a backlog of -nats-events, and
// how long a client takes that publishes as many messages of the same size to the same
// stream, asynchronously and with nothing else to do: one server, and three replicas.
func TestNATSFeed_Throughput(t *testing.T) {
	n := *natsEvents
	if n == 0 {
		t.Skip("a measure: set -nats-events 20000 on a machine that does nothing else")
	}
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("replicas %d", nodes), func(t *testing.T) {
			c := newNATSCluster(t, nodes, nil)
			js := c.client(t)
			c.stream(t, js, jetstream.StreamConfig{Duplicates: 10 * time.Minute})
			w := newOperatorWorld(t)
			w.feeds(t, "add", "stream", "--url", c.url())
			w.feeds(t, "disable", "stream")
			w.db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) SELECT n, 7 + n %% 3, n FROM generate_series(1, %d) n`, n))
			conn := w.db.Connect(t)
			eventually(t, 5*time.Minute, func() bool {
				var stored int
				return conn.QueryRow(t.Context(), "SELECT count(*) FROM walhook.event").Scan(&stored) == nil && stored >= n
			})
			began := time.Now()
			w.feeds(t, "enable", "stream")
			awaitMessages(t, js, "WALHOOK", 1) // when the sender has noticed
			first := time.Now()
			awaitMessages(t, js, "WALHOOK", uint64(n))
			drained := time.Since(first)

			body := held(t, js, "WALHOOK")[0].body
			published := time.Now()
			for i := range n {
				message := &nats.Msg{Subject: "walhook.7.dids.insert", Data: []byte(body), Header: nats.Header{jetstream.MsgIDHeader: {fmt.Sprint("load_", i)}}}
				if _, err := js.PublishMsgAsync(message, jetstream.WithStallWait(patience)); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case <-js.PublishAsyncComplete():
			case <-time.After(patience):
				t.Fatal("the client's messages are not acknowledged")
			}
			alone := time.Since(published)
			t.Logf("%d events of %d bytes: the feed began after %s and sent %.0f a second, a client alone publishes %.0f a second", n, len(strings.TrimSpace(body)),
				first.Sub(began).Round(time.Millisecond), float64(n)/drained.Seconds(), float64(n)/alone.Seconds())
		})
	}
}
