package api

import (
	"fmt"
	"testing"
	"time"

	"walhook/internal/pgtest"
)

// What comes after a rotation is not signed with what it ended, by a stream or a long poll
// that was open before, whatever the publisher knows of the webhook.
func TestFeed_SignsWithTheSecretsOfNow(t *testing.T) {
	t.Parallel()
	w := newWorldChecking(t, pgtest.Database(t), time.Hour)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	path := "/v2/accounts/7/webhooks/" + id
	w.publisherKnows = 1
	w.append(t, id, 1)
	stream := w.stream(t, token, path+"/feed")
	stream.ids(t, 1)
	w.waiting(t, 1)
	for n := 2; n <= 6; n++ {
		polled := make(chan reply)
		go func() { polled <- w.call(t, token, "GET", path+"/feed?last=0&wait=30", "") }()
		w.waiting(t, 2)
		other := w.webhook(t, token, "7", "")
		secret := w.want(t, 200, token, "GET", "/v2/accounts/7/webhooks/"+other+"/secret", "").data(t)["secret"].(string)
		w.withAppend = "UPDATE walhook.endpoint SET revision = revision + 1, secret = (SELECT secret FROM walhook.endpoint WHERE webhook = '" + other + "') WHERE webhook = '" + id + "'"
		w.append(t, id, n)
		stream.ids(t, 1)
		if got := w.destination.secretOf(fmt.Sprintf("evt_%d", n)); got != secret {
			t.Fatalf("after rotation %d the stream signed with an ended secret", n-1)
		}
		r := <-polled
		if ids, _ := feedIDs(t, r); len(ids) != 1 {
			t.Fatalf("the poll has %v", ids)
		}
		if got := w.destination.secretOf(fmt.Sprintf("evt_%d", n)); got != secret {
			t.Fatalf("after rotation %d the poll signed with an ended secret", n-1)
		}
	}
}

func (c *fixedDestination) secretOf(event string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.signedWith[event]
}

// A process that cannot read the webhook's secret, such as one with another --secret-key,
// passes over no event: the feed answers 503 until it can.
func TestFeed_WaitsWhileNoSecretCanBeRead(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	path := "/v2/accounts/7/webhooks/" + id + "/feed"
	w.append(t, id, 1)
	_, cursor := feedIDs(t, w.want(t, 200, token, "GET", path, ""))
	stream := w.stream(t, token, path+"?after="+cursor)
	w.waiting(t, 1)
	w.destination.unreadable.Store(true)
	w.append(t, id, 2)
	w.want(t, 503, token, "GET", path+"?after="+cursor, "")
	w.want(t, 503, token, "GET", path+"?after="+cursor, "", "Accept", "text/event-stream")
	stream.ids(t, 1) // it knows the secret that it began with
	w.exec(t, "UPDATE walhook.endpoint SET revision = revision + 1 WHERE webhook = $1", id)
	w.wantEnded(t, endedFailed)
	w.destination.unreadable.Store(false)
	ids, _ := feedIDs(t, w.want(t, 200, token, "GET", path+"?after="+cursor, ""))
	if len(ids) != 1 || ids[0] != "2" {
		t.Errorf("then the feed has %v, want what came meanwhile", ids)
	}
}
