package deliver

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// While a stream changes its leader nobody takes an event: an attempt waits for that, so
// that it does not count against the feed.
func TestNATSFeed_AnAttemptWaitsForAStreamsLeader(t *testing.T) {
	t.Parallel()
	js, s := newNATSServer(t)
	f := newPartialFeed(t, s.ClientURL(), Config{})
	stream := jetstream.StreamConfig{Name: "ALL", Subjects: []string{"walhook.>"}}
	if _, err := js.CreateStream(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	f.want(t, "before", "dids", natsAcked, false)
	if err := js.DeleteStream(t.Context(), "ALL"); err != nil {
		t.Fatal(err)
	}
	back := make(chan error, 1)
	time.AfterFunc(natsElection/2, func() {
		_, err := js.CreateStream(t.Context(), stream)
		back <- err
	})
	f.want(t, "meanwhile", "dids", natsAcked, false)
	if err := <-back; err != nil {
		t.Fatal(err)
	}
}

// A server whose streams answer again is not left, although nothing was published since.
func TestNATSFeed_AServerWhoseStreamsAnswerIsNotLeft(t *testing.T) {
	t.Parallel()
	js, s := newNATSServer(t)
	other, o := newNATSServer(t)
	f := newPartialFeed(t, s.ClientURL()+","+o.ClientURL(), Config{})
	f.want(t, "without a stream", "dids", string(failNATSNoStream), true)
	if s.NumClients() < 2 { // the test is one
		js = other
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ALL", Subjects: []string{"walhook.>"}}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(natsDoubt + natsDoubtAsk - natsElection + time.Second/2) // it would have left
	f.want(t, "with one", "dids", natsAcked, false)
}
