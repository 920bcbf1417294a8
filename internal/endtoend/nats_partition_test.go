package endtoend

import (
	"encoding/json"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"walhook/internal/loopback"
)

// natsParts is a cluster of which the nodes can be cut off from each other, while clients
// reach all of them.
type natsParts struct {
	*natsCluster
	gates map[[2]int]*natsGate // from one node to another
}

func newNATSParts(t *testing.T, nodes int) *natsParts {
	t.Helper()
	p := &natsParts{gates: map[[2]int]*natsGate{}}
	ports, routes := make([]int, nodes), make([][]*url.URL, nodes)
	for to := range nodes {
		ports[to] = portOf(t, loopback.Address(t))
		for from := range nodes {
			if from == to {
				continue
			}
			gate := newNATSGate(t, ports[to])
			p.gates[[2]int{from, to}] = gate
			routes[from] = append(routes[from], &url.URL{Scheme: "nats", Host: gate.address})
		}
	}
	node := 0
	p.natsCluster = newNATSCluster(t, nodes, func(o *server.Options) {
		o.Cluster.Port, o.Routes = ports[node], routes[node]
		// What nodes tell of each other is of no use, so that every route goes through a gate.
		o.Cluster.Advertise, o.Cluster.NoAdvertise = loopback.Address(t), true
		node++
	})
	return p
}

// cut takes nodes from all others: by a network that drops everything, or by ends of
// connections.
func (p *natsParts) cut(silently bool, nodes ...int) (join func()) {
	var all []func()
	for between, gate := range p.gates {
		if !slices.Contains(nodes, between[0]) && !slices.Contains(nodes, between[1]) {
			continue
		}
		if silently {
			all = append(all, gate.shut())
		} else {
			all = append(all, gate.sever())
		}
	}
	return func() {
		for _, join := range all {
			join()
		}
	}
}

// serves is the node that walhook is connected to.
func (p *natsParts) serves(t *testing.T) (node int) {
	t.Helper()
	eventually(t, patience, func() bool {
		node = slices.IndexFunc(p.servers, func(s *server.Server) bool {
			list, err := s.Connz(nil)
			return err == nil && slices.ContainsFunc(list.Conns, func(c *server.ConnInfo) bool { return strings.HasPrefix(c.Name, "walhook/") })
		})
		return node >= 0
	})
	return node
}

// lead makes a node the leader of the stream, once it has all that the stream holds: one
// that lacks something is not elected, and every try is an election.
func (p *natsParts) lead(t *testing.T, js jetstream.JetStream, node int) {
	t.Helper()
	name := p.options[node].ServerName
	request, err := json.Marshal(map[string]any{"placement": map[string]string{"preferred": name}})
	if err != nil {
		t.Fatal(err)
	}
	var asked time.Time
	eventually(t, patience, func() bool {
		if p.leader(t, js, "WALHOOK") == node {
			return true
		}
		s, err := js.Stream(t.Context(), "WALHOOK")
		if err == nil && time.Since(asked) > 10*time.Second && slices.ContainsFunc(s.CachedInfo().Cluster.Replicas, func(r *jetstream.PeerInfo) bool {
			return r.Name == name && r.Current && !r.Offline
		}) {
			_, _ = js.Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN.WALHOOK", request, time.Second)
			asked = time.Now()
		}
		return false
	})
}

// A node that is cut off inside the cluster, while walhook is connected to it: walhook goes
// to another one. While no node reaches another, the trouble has a reason in status and
// metrics. The stream then holds every event, those of a record in order, and none twice.
func TestNATSFeed_LosesNothingWhenNodesAreCutOff(t *testing.T) {
	t.Parallel()
	p := newNATSParts(t, 3)
	js := p.client(t, nats.Timeout(2*time.Second))
	p.stream(t, js, jetstream.StreamConfig{Discard: jetstream.DiscardNew, Duplicates: 10 * time.Minute})
	w := newOperatorWorld(t, "--retry-schedule", strings.Repeat("500ms,", 1000)+"1s", "--attempt-timeout", "5s")
	w.feeds(t, "add", "stream", "--url", p.url())
	work := beginWork(t, w)
	work.flows(t)
	for _, trouble := range []struct {
		name     string
		silently bool
		leads    bool // the node that walhook is connected to
	}{
		{"a replica, by a network that drops everything", true, false},
		{"the leader, by a network that drops everything", true, true},
		{"a replica, by ends of connections", false, false},
		{"the leader, by ends of connections", false, true},
	} {
		var node int
		eventually(t, patience, func() bool { // walhook may go to another server during an election
			node = p.serves(t)
			leader := node
			if !trouble.leads {
				leader = (node + 1 + rand.IntN(2)) % 3
			}
			p.lead(t, js, leader)
			work.flows(t)
			return p.serves(t) == node && p.leader(t, js, "WALHOOK") == leader
		})
		at := time.Now()
		join := p.cut(trouble.silently, node)
		eventually(t, patience, func() bool { return p.serves(t) != node })
		work.flows(t)
		t.Logf("cut off is %s: flows again after %s", trouble.name, time.Since(at).Round(100*time.Millisecond))
		join()
		work.flows(t)
	}

	join := p.cut(true, 0, 1, 2)
	eventually(t, patience, func() bool { // the lane is saved every few seconds
		status := mustRun(t, "status", "--source", w.db.URL, "--slot", "feeds_"+w.db.Name)
		return strings.Contains(status, "nats_no_stream") || strings.Contains(status, "nats_timeout")
	})
	reasons := work.reasons(t)
	for _, reason := range []string{"nats_no_stream", "nats_timeout"} {
		if reasons[reason] == 0 {
			continue
		}
		if n := scrape(t, w.address).sum("walhook_attempts_total", "outcome", "retry", "reason", reason); n < 1 {
			t.Errorf("walhook_attempts_total has %v attempts with the reason %s", n, reason)
		}
	}
	join()
	work.flows(t)
	work.end(t)
	compareStream(t, work.conn, held(t, js, "WALHOOK"))
	t.Log(work.reasons(t))
}
