package endtoend

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A feed over NATS: one message for each event, under its subject, with the body of the
// record feed, the webhook-id and the account. What is sent again is dropped by the stream.
func TestNATSFeed_PublishesEveryAccountsEvents(t *testing.T) {
	t.Parallel()
	c := newNATSCluster(t, 1, nil)
	js := c.client(t)
	c.stream(t, js, jetstream.StreamConfig{})
	w := newOperatorWorld(t)
	w.feeds(t, "add", "stream", "--url", c.url())
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (1, 7, '71')`)
	w.db.Exec(t, `UPDATE dids SET user_id = 8 WHERE id = 1`)
	w.db.Exec(t, `INSERT INTO async_results (user_id, schema, type, status) VALUES (9, 'sms.enablement', 'update', 'done')`)
	awaitMessages(t, js, "WALHOOK", 4)
	got := map[string]natsEvent{}
	var order []string
	for _, e := range held(t, js, "WALHOOK") {
		got[e.subject] = e
		if strings.Contains(e.subject, ".dids.") {
			order = append(order, e.subject)
		}
	}
	if want := "walhook.7.dids.insert walhook.7.dids.delete walhook.8.dids.insert"; strings.Join(order, " ") != want {
		t.Errorf("the stream holds %v, want %s", order, want)
	}
	if e := got["walhook.9.sms%2Eenablement.update"]; e.account != "9" {
		t.Errorf("the stream holds %+v", e)
	}
	if e := got["walhook.7.dids.delete"]; e.account != "7" || !strings.HasPrefix(e.id, "evt_") || !strings.HasPrefix(e.body, `{"type":"delete","schema":"dids","data":"{\"id\":1,`) {
		t.Errorf("the stream holds %+v", e)
	}

	// Sent again: the stream acknowledges, and drops it.
	before := held(t, js, "WALHOOK")
	mustRun(t, "replay", "--endpoint", fmt.Sprint(w.feed(t, "stream")["endpoint"]), "--since", "1h", "--outbox", w.db.URL)
	w.awaitReason(t, "delivered", "nats_ack_duplicate", len(before))
	if after := held(t, js, "WALHOOK"); len(after) != len(before) {
		t.Errorf("after a replay the stream holds %d messages, before %d", len(after), len(before))
	}
}

// awaitReason waits until so many attempts had an outcome and a reason.
func (w *operatorWorld) awaitReason(t *testing.T, outcome, reason string, n int) {
	t.Helper()
	conn := w.db.Connect(t)
	var seen string
	defer func() {
		if t.Failed() {
			t.Logf("the attempts: %s", seen)
		}
	}()
	eventually(t, patience, func() bool {
		var count int
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE outcome = $1 AND reason = $2),
			coalesce((SELECT string_agg(DISTINCT outcome || ' ' || reason || ' ' || detail, '; ') FROM walhook.attempt), '') FROM walhook.attempt`, outcome, reason).Scan(&count, &seen); err != nil {
			t.Fatal(err)
		}
		return count >= n
	})
}

// afresh ends the breaker of a feed, so that the next attempt is soon.
func (w *operatorWorld) afresh(t *testing.T, name string) {
	t.Helper()
	w.feeds(t, "disable", name, "--reason", "the test")
	w.feeds(t, "enable", name)
}

// awaitDetail waits until an attempt failed for a reason with a detail.
func (w *operatorWorld) awaitDetail(t *testing.T, reason, detail string) {
	t.Helper()
	conn := w.db.Connect(t)
	var seen string
	defer func() {
		if t.Failed() {
			t.Logf("the attempts: %s", seen)
		}
	}()
	eventually(t, patience, func() bool {
		var found bool
		if err := conn.QueryRow(t.Context(), `SELECT coalesce(bool_or(reason = $1 AND strpos(detail, $2) > 0), false),
			coalesce(string_agg(DISTINCT outcome || ' ' || reason || ' ' || detail, '; '), '') FROM walhook.attempt`, reason, detail).Scan(&found, &seen); err != nil {
			t.Fatal(err)
		}
		return found
	})
}

// Each trouble has its reason, in the attempts and in 'feeds show', and when it is over
// what waited is delivered.
func TestNATSFeed_NamesEachTrouble(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "login")
	writeFile(t, file, "walhook:right\n")
	users := func(may bool) []*server.User {
		w := &server.User{Username: "walhook", Password: "right"}
		if !may {
			w.Permissions = &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{"$JS.>"}}}
		}
		return []*server.User{w, {Username: "operator", Password: "operator"}}
	}
	c := newNATSCluster(t, 1, func(o *server.Options) { o.Users, o.MaxPayload = users(true), 4096 })
	js := c.client(t, nats.UserInfo("operator", "operator"))
	w := newOperatorWorld(t, "--nats-credentials", file, "--retry-schedule", strings.Repeat("300ms,", 200)+"1s", "--attempt-timeout", "3s")
	w.feeds(t, "add", "stream", "--url", c.url())
	next, held := 0, uint64(0)
	insert := func() {
		next++
		w.db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) VALUES (%d, 7, '1')`, next))
	}
	over := func() {
		held++
		awaitMessages(t, js, "WALHOOK", held)
	}
	restart := func() {
		c.stop(0)
		c.start(t, 0)
	}

	doctor := func() string {
		out, _ := walhook(t, "doctor", "--source", w.db.URL, "--slot", "feeds_"+w.db.Name, "--nats-credentials", file)
		_, about, _ := strings.Cut(out, "feeds.nats")
		return about
	}
	insert()
	w.awaitReason(t, "retry", "nats_no_stream", 1)
	if about := doctor(); !strings.Contains(about, "no stream takes walhook.>") || !strings.Contains(about, "nats stream add WALHOOK --subjects 'walhook.>'") {
		t.Errorf("without a stream doctor says %s", about)
	}
	c.stream(t, js, jetstream.StreamConfig{MaxMsgs: 1, Discard: jetstream.DiscardNew})
	over()

	insert()
	w.awaitReason(t, "retry", "nats_stream_full", 1)
	if about := doctor(); !strings.Contains(about, "100 % of the messages") {
		t.Errorf("of a full stream doctor says %s", about)
	}
	c.stream(t, js, jetstream.StreamConfig{MaxAge: time.Hour})
	over()
	if about := doctor(); !strings.Contains(about, "takes its subjects") || strings.Contains(about, "nats stream") {
		t.Errorf("of a stream that fits doctor says %s", about)
	}

	c.options[0].Users = users(false)
	restart()
	insert()
	w.awaitReason(t, "retry", "nats_permission", 1)
	c.options[0].Users = []*server.User{{Username: "walhook", Password: "another"}, {Username: "operator", Password: "operator"}}
	restart()
	w.awaitReason(t, "retry", "nats_refused", 1)
	writeFile(t, file, "walhook:another\n")
	over()

	c.stop(0)
	insert()
	w.awaitReason(t, "retry", "nats_disconnected", 1)
	c.start(t, 0)
	over()

	w.db.Exec(t, `INSERT INTO call_flows (id, user_id, flow_name, flow_data) VALUES (1, 7, 'large', to_json(repeat('x', 5000)))`)
	w.awaitReason(t, "dead", "nats_too_large", 1)
	if dead := w.feed(t, "stream")["dead_letters"]; dead != 1.0 {
		t.Errorf("%v dead letters, want 1", dead)
	}
}

// What the server denies for one account, or what of one subject is full, holds up nothing of
// others: the feed's breaker stays closed.
func TestNATSFeed_ADeniedAccountStopsNoOther(t *testing.T) {
	t.Parallel()
	c := newNATSCluster(t, 1, func(o *server.Options) {
		o.Users = []*server.User{{Username: "operator", Password: "operator"}, {Username: "walhook", Password: "right",
			Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"walhook.7.>"}}}}}
	})
	js := c.client(t, nats.UserInfo("operator", "operator"))
	c.stream(t, js, jetstream.StreamConfig{MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true})
	file := filepath.Join(t.TempDir(), "login")
	writeFile(t, file, "walhook:right")
	w := newOperatorWorld(t, "--nats-credentials", file, "--retry-schedule", "1h")
	w.feeds(t, "add", "stream", "--url", c.url())
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) SELECT n, 7, '1' FROM generate_series(1, 50) n`)
	w.awaitReason(t, "retry", "nats_permission", 50)
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) SELECT n, 8, '1' FROM generate_series(101, 150) n`)
	w.awaitReason(t, "retry", "nats_subject_full", 49)
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (200, 9, '1')`)
	awaitMessages(t, js, "WALHOOK", 2)
	if n := scrape(t, w.address).sum("walhook_breaker_transitions_total", "to", "open"); n != 0 {
		t.Errorf("the breaker opened %v times", n)
	}
}

// What no stream takes of a feed holds up nothing that a stream takes.
func TestNATSFeed_ASubjectWithoutAStreamStopsNoOther(t *testing.T) {
	t.Parallel()
	c := newNATSCluster(t, 3, nil)
	js := c.client(t)
	c.stream(t, js, jetstream.StreamConfig{Subjects: []string{"walhook.*.*.insert"}})
	w := newOperatorWorld(t, "--retry-schedule", "1h")
	w.feeds(t, "add", "stream", "--url", c.url())
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) SELECT n, 7, '1' FROM generate_series(1, 50) n`)
	awaitMessages(t, js, "WALHOOK", 50)
	w.db.Exec(t, `UPDATE dids SET number = '2' WHERE id <= 50`)
	w.awaitReason(t, "retry", "nats_no_subject", 50)
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) SELECT n, 7, '1' FROM generate_series(51, 60) n`)
	awaitMessages(t, js, "WALHOOK", 60)
	if n := scrape(t, w.address).sum("walhook_breaker_transitions_total", "to", "open"); n != 0 {
		t.Errorf("the breaker opened %v times", n)
	}
}
