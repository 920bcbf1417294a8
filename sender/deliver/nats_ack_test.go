package deliver

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"walhook/outbox"
)

// natsByHand is a server whose stream is the test: it gets what a feed publishes, and
// answers or does not.
type natsByHand struct {
	server    *server.Server
	published chan *nats.Msg
	feeds     *Destinations
	endpoint  outbox.Endpoint
}

func newNATSByHand(t *testing.T) *natsByHand {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	t.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server is not ready")
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	h := &natsByHand{server: s, published: make(chan *nats.Msg, 16)}
	if _, err = nc.ChanSubscribe("walhook.>", h.published); err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	if h.feeds, err = New(Config{Version: "test", AttemptTimeout: 2 * patience, ConnectTimeout: patience}.WithDefaults()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.feeds.Close)
	h.endpoint = outbox.Endpoint{ID: 1, Revision: 1, Feed: true, URL: s.ClientURL(), SubjectPrefix: "walhook", State: outbox.EndpointActive}
	return h
}

// begin makes an attempt, and returns once the server has what it published.
func (h *natsByHand) begin(t *testing.T) (*nats.Msg, <-chan Result) {
	t.Helper()
	event := testEvent
	event.Account, event.Schema, event.Type = "7", "dids", "insert"
	result := make(chan Result, 1)
	go func() { result <- h.feeds.Deliver(t.Context(), h.endpoint, event) }()
	select {
	case message := <-h.published:
		return message, result
	case r := <-result:
		t.Fatalf("before anything was published: %+v", r)
	case <-time.After(patience):
		t.Fatal("nothing was published")
	}
	return nil, nil
}

func awaitResult(t *testing.T, result <-chan Result) Result {
	t.Helper()
	select {
	case r := <-result:
		return r
	case <-time.After(patience):
		t.Fatal("the attempt did not end")
	}
	return Result{}
}

// What the stream answers is the attempt's outcome.
func TestNATSFeed_TakesTheStreamsAnswer(t *testing.T) {
	t.Parallel()
	h := newNATSByHand(t)
	for _, c := range []struct {
		answer  string
		outcome Outcome
		reason  string
	}{
		{`{"stream":"S","seq":1}`, Delivered, natsAcked},
		{`{"stream":"S","seq":1,"duplicate":true}`, Delivered, natsDuplicate},
		{`{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}`, Retry, string(failNATSFull)},
		{`{"error":{"code":500,"err_code":10049,"description":"deleted message"}}`, Retry, string(failNATSRejected)},
		{`hello`, Retry, string(failNATSRejected)},
	} {
		message, result := h.begin(t)
		if id := message.Header.Get("Nats-Msg-Id"); id != testEvent.WebhookID {
			t.Errorf("the message has the id %q, want %q", id, testEvent.WebhookID)
		}
		if err := message.Respond([]byte(c.answer)); err != nil {
			t.Fatal(err)
		}
		if r := awaitResult(t, result); r.Outcome != c.outcome || r.Reason != c.reason {
			t.Errorf("%s: %v %s, want %v %s", c.answer, r.Outcome, r.Reason, c.outcome, c.reason)
		}
	}
}

// What was published and not acknowledged fails with its connection, long before the
// attempt's time is over: when the server ends, which need not come back for that, and when
// walhook closes the connection, of which the client says nothing to publications.
func TestNATSFeed_FailsWithItsConnection(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*natsByHand) error{
		"the server ends": func(h *natsByHand) error {
			h.server.Shutdown()
			return nil
		},
		"walhook closes it": func(h *natsByHand) error {
			conn, err := h.feeds.nats.conn(h.endpoint.URL)
			if err == nil {
				conn.close()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newNATSByHand(t)
			_, result := h.begin(t)
			if err := end(h); err != nil {
				t.Fatal(err)
			}
			if r := awaitResult(t, result); r.Outcome != Retry || r.Reason != string(failNATSDown) {
				t.Errorf("%v %s, want a retry for %s", r.Outcome, r.Reason, failNATSDown)
			}
		})
	}
}
