package deliver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"walhook/outbox"
)

// newNATSServer is a server with JetStream, whose users may do what they may; the first one
// is the test's.
func newNATSServer(t *testing.T, users ...*server.User) (jetstream.JetStream, *server.Server) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(), Users: users})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	t.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server is not ready")
	}
	var options []nats.Option
	if len(users) > 0 {
		options = append(options, nats.UserInfo(users[0].Username, users[0].Password))
	}
	nc, err := nats.Connect(s.ClientURL(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js, s
}

// partialFeed is a feed whose stream takes only some of its subjects.
type partialFeed struct {
	feeds    *Destinations
	endpoint outbox.Endpoint
}

func newPartialFeed(t *testing.T, url string, c Config) *partialFeed {
	t.Helper()
	c.Version, c.AttemptTimeout, c.ConnectTimeout = "test", patience, patience
	feeds, err := New(c.WithDefaults())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(feeds.Close)
	return &partialFeed{feeds, outbox.Endpoint{ID: 1, Revision: 1, Feed: true, URL: url, SubjectPrefix: "walhook", State: outbox.EndpointActive}}
}

// want publishes an event of a schema.
func (f *partialFeed) want(t *testing.T, what, schema, reason string, fault bool) {
	t.Helper()
	event := testEvent
	event.Account, event.Schema, event.Type, event.WebhookID = "7", schema, "insert", "evt_"+what+schema
	if r := f.feeds.Deliver(t.Context(), f.endpoint, event); r.Reason != reason || r.EndpointFault != fault {
		t.Errorf("%s: %s is %s, counts against the feed: %v; want %s, %v (%s)", what, schema, r.Reason, r.EndpointFault, reason, fault, r.Detail)
	} else if reason == string(failNATSNoSubject) && !strings.Contains(r.Detail, "walhook.7."+schema+".insert") {
		t.Errorf("%s: the detail does not name the subject: %s", what, r.Detail)
	}
}

// A subject that no stream takes counts against its events alone, while streams take others
// of the feed; a stream that is missing counts against the feed.
func TestNATSFeed_ASubjectWithoutAStreamStopsNoOther(t *testing.T) {
	t.Parallel()
	js, s := newNATSServer(t)
	f := newPartialFeed(t, s.ClientURL(), Config{})
	const noStream, noSubject = string(failNATSNoStream), string(failNATSNoSubject)
	f.want(t, "without a stream", "dids", noStream, true)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "SOME", Subjects: []string{"walhook.*.dids.*"}}); err != nil {
		t.Fatal(err)
	}
	f.want(t, "before any acknowledgement", "users", noStream, true)
	f.want(t, "taken", "dids", natsAcked, false)
	f.want(t, "not taken", "users", noSubject, false)
	f.want(t, "not taken again", "e911", noSubject, false)
	f.want(t, "taken still", "dids", natsAcked, false)
	if _, err := js.UpdateStream(t.Context(), jetstream.StreamConfig{Name: "SOME", Subjects: []string{"walhook.*.dids.*", "walhook.*.users.*"}}); err != nil {
		t.Fatal(err)
	}
	f.want(t, "taken since", "users", natsAcked, false)
	if err := js.DeleteStream(t.Context(), "SOME"); err != nil {
		t.Fatal(err)
	}
	again := newPartialFeed(t, s.ClientURL(), Config{})
	again.want(t, "deleted", "users", noStream, true)
	f.want(t, "deleted, and acknowledged before", "users", noStream, true)
}

// A user who may not ask JetStream gets what an event without an answer always was.
func TestNATSFeed_WhoMayNotAskKnowsOfNoSubject(t *testing.T) {
	t.Parallel()
	js, s := newNATSServer(t, &server.User{Username: "all", Password: "all"}, &server.User{Username: "feed", Password: "feed", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{"walhook.>"}}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
	}})
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "SOME", Subjects: []string{"walhook.*.dids.*"}}); err != nil {
		t.Fatal(err)
	}
	login := filepath.Join(t.TempDir(), "login")
	if err := os.WriteFile(login, []byte("feed:feed"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newPartialFeed(t, s.ClientURL(), Config{NATSCredentials: []NATSCredentials{{File: login}}})
	f.want(t, "taken", "dids", natsAcked, false)
	f.want(t, "not taken", "users", string(failNATSNoStream), true)
	f.want(t, "taken still", "dids", natsAcked, false)
}

func TestNATSSubject_IsTakenByAStreamsSubject(t *testing.T) {
	for filter, want := range map[string]bool{
		">": true, "walhook.>": true, "walhook.*.dids.*": true, "walhook.7.dids.insert": true, "*.7.*.>": true,
		"walhook.*.users.*": false, "walhook.*.dids": false, "walhook.7.dids.insert.>": false, "walhook.8.>": false, "walhook": false, "other.>": false,
	} {
		if takesSubject(filter, "walhook.7.dids.insert") != want {
			t.Errorf("a stream of %s takes it: %v", filter, !want)
		}
	}
}
