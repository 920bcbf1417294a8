package endtoend

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// A server takes a client for a slow consumer, and ends its connection, when more waits to
// be written to it than max_pending allows: here a few acknowledgements, so that each burst
// of events ends it, and the events' acknowledgements are gone. They are published again,
// and the stream knows them.
func TestNATSFeed_ASlowConsumerLosesNothing(t *testing.T) {
	t.Parallel()
	c := newNATSCluster(t, 1, nil)
	js := c.client(t)
	c.stream(t, js, jetstream.StreamConfig{Duplicates: 10 * time.Minute})
	w := newOperatorWorld(t, "--retry-schedule", strings.Repeat("300ms,", 1000)+"1s", "--attempt-timeout", "5s")
	w.feeds(t, "add", "stream", "--url", c.url())
	limit := func(pending int64) *server.Server {
		c.stop(0)
		c.options[0].MaxPending, c.options[0].MaxPayload = pending, int32(min(pending, server.MAX_PAYLOAD_SIZE))
		c.start(t, 0)
		return c.servers[0]
	}
	work := beginWork(t, w)
	work.flows(t)
	strict := limit(2000)
	eventually(t, patience, func() bool {
		w.db.Exec(t, `INSERT INTO dids (id, user_id, number) SELECT id, 7 + id % 3, '1'
			FROM (SELECT coalesce(max(id), 0) + n AS id FROM dids, generate_series(1, 200) n GROUP BY n) new`)
		return strict.NumSlowConsumersClients() > 0
	})
	work.refuses(t, "nats_disconnected")
	t.Logf("connections ended: %d", strict.NumSlowConsumersClients())
	limit(server.MAX_PENDING_SIZE)
	at := time.Now()
	work.flows(t)
	work.end(t)
	t.Logf("all is delivered %s after the limit is as by default; %v", time.Since(at).Round(100*time.Millisecond), work.reasons(t))
	compareStream(t, work.conn, held(t, c.working(t), "WALHOOK"))
}
