package endtoend

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"walhook/internal/loopback"
)

// natsCluster is a real cluster of NATS servers with JetStream, in this process, on the
// loopback addresses.
type natsCluster struct {
	options []*server.Options
	servers []*server.Server
}

func newNATSCluster(t *testing.T, nodes int, edit func(*server.Options)) *natsCluster {
	t.Helper()
	c := &natsCluster{servers: make([]*server.Server, nodes)}
	var routes []*url.URL
	ports := map[int]int{}
	for i := range nodes {
		ports[i] = portOf(t, loopback.Address(t))
		u, err := url.Parse(fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, u)
	}
	for i := range nodes {
		o := &server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: portOf(t, loopback.Address(t)), NoSigs: true, NoLog: true,
			JetStream: true, StoreDir: t.TempDir(), JetStreamMaxMemory: 256 << 20, JetStreamMaxStore: 1 << 30,
		}
		if nodes > 1 {
			o.Cluster = server.ClusterOpts{Name: "walhook", Host: "127.0.0.1", Port: ports[i]}
			o.Routes = routes
		}
		if edit != nil {
			edit(o)
		}
		c.options = append(c.options, o)
		c.start(t, i)
	}
	t.Cleanup(func() {
		for i := range c.servers {
			c.stop(i)
		}
	})
	if nodes > 1 {
		c.awaitLeader(t)
	}
	return c
}

func portOf(t *testing.T, address string) (port int) {
	t.Helper()
	if _, err := fmt.Sscanf(address[strings.LastIndexByte(address, ':')+1:], "%d", &port); err != nil {
		t.Fatal(err)
	}
	return port
}

func (c *natsCluster) start(t *testing.T, i int) {
	t.Helper()
	s, err := server.NewServer(c.options[i].Clone())
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(patience) {
		t.Fatalf("server %d is not ready", i)
	}
	c.servers[i] = s
}

func (c *natsCluster) stop(i int) {
	if s := c.servers[i]; s != nil {
		s.Shutdown()
		s.WaitForShutdown()
		c.servers[i] = nil
	}
}

// awaitLeader waits until the cluster's JetStream has one.
func (c *natsCluster) awaitLeader(t *testing.T) {
	t.Helper()
	eventually(t, patience, func() bool {
		return slices.ContainsFunc(c.servers, func(s *server.Server) bool {
			return s != nil && s.JetStreamIsLeader() && s.JetStreamClusterPeers() != nil && len(s.JetStreamClusterPeers()) == len(c.options)
		})
	})
}

func (c *natsCluster) url() string {
	var all []string
	for _, o := range c.options {
		all = append(all, fmt.Sprintf("nats://127.0.0.1:%d", o.Port))
	}
	return strings.Join(all, ",")
}

// client connects to the cluster as an operator of NATS does.
func (c *natsCluster) client(t *testing.T, options ...nats.Option) jetstream.JetStream {
	t.Helper()
	var nc *nats.Conn
	eventually(t, patience, func() (ok bool) {
		var err error
		nc, err = nats.Connect(c.url(), append(options, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))...)
		return err == nil
	})
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// working is a client of a server on which the stream answers. One whose users were reloaded
// may be without the API of JetStream: no one responds on it, for minutes, and that may begin
// a moment after the reload.
func (c *natsCluster) working(t *testing.T, options ...nats.Option) (js jetstream.JetStream) {
	t.Helper()
	eventually(t, patience, func() bool {
		js = c.client(t, options...)
		_, err := js.AccountInfo(t.Context())
		if err == nil {
			_, err = js.Stream(t.Context(), "WALHOOK")
		}
		if err != nil {
			t.Logf("%s answers %v: another one is asked", js.Conn().ConnectedUrl(), err)
			js.Conn().Close()
		}
		return err == nil
	})
	return js
}

// stream makes a stream, or changes it.
func (c *natsCluster) stream(t *testing.T, js jetstream.JetStream, config jetstream.StreamConfig) {
	t.Helper()
	config.Name = cmp.Or(config.Name, "WALHOOK")
	if config.Subjects == nil {
		config.Subjects = []string{"walhook.>"}
	}
	if config.Replicas == 0 {
		config.Replicas = len(c.options)
	}
	var err error
	eventually(t, patience, func() bool { // a cluster that has just begun has no peers for it yet
		_, err = js.CreateOrUpdateStream(t.Context(), config)
		return err == nil
	})
}

// leader is the number of the server that leads the stream.
func (c *natsCluster) leader(t *testing.T, js jetstream.JetStream, stream string) (node int) {
	t.Helper()
	eventually(t, patience, func() bool {
		s, err := js.Stream(t.Context(), stream)
		if err != nil || s.CachedInfo().Cluster == nil {
			return false
		}
		node = slices.IndexFunc(c.options, func(o *server.Options) bool { return o.ServerName == s.CachedInfo().Cluster.Leader })
		return node >= 0
	})
	return node
}

// natsEvent is what a stream holds of an event.
type natsEvent struct {
	subject, id, account, body string
}

// held reads all that a stream holds, in its order. A cluster that looks for a leader answers
// nothing: it is asked again.
func held(t *testing.T, js jetstream.JetStream, stream string) (events []natsEvent) {
	t.Helper()
	var err error
	defer func() {
		if err != nil {
			t.Logf("read the stream %s: %v", stream, err)
		}
	}()
	eventually(t, patience, func() bool {
		events, err = readStream(t.Context(), js, stream)
		return err == nil
	})
	return events
}

func readStream(ctx context.Context, js jetstream.JetStream, stream string) (events []natsEvent, err error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	info, err := s.Info(ctx)
	if err != nil {
		return nil, err
	}
	consumer, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	for want := int(info.State.Msgs); len(events) < want; {
		batch, err := consumer.Fetch(min(want-len(events), 500), jetstream.FetchMaxWait(10*time.Second))
		if err != nil {
			return nil, err
		}
		before := len(events)
		for m := range batch.Messages() {
			events = append(events, natsEvent{m.Subject(), m.Headers().Get("Nats-Msg-Id"), m.Headers().Get("walhook-account"), string(m.Data())})
		}
		if batch.Error() != nil {
			return nil, batch.Error()
		}
		if len(events) == before {
			return nil, fmt.Errorf("it gives %d of %d messages", before, want)
		}
	}
	return events, nil
}

// awaitMessages waits until a stream holds n messages.
func awaitMessages(t *testing.T, js jetstream.JetStream, stream string, n uint64) {
	t.Helper()
	var has uint64
	defer func() {
		if has < n {
			t.Logf("the stream holds %d of %d messages", has, n)
		}
	}()
	eventually(t, patience, func() bool {
		s, err := js.Stream(t.Context(), stream)
		if err != nil {
			return false
		}
		has = s.CachedInfo().State.Msgs
		return has >= n
	})
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
