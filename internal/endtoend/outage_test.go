package endtoend

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"walhook/internal/chaos"
	"walhook/internal/loopback"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
	"walhook/internal/receiver"
)

// A bad night: what goes wrong on production's worst days, each time with the
// question what the parts that still can do their work are doing meanwhile. The
// runbooks are in docs/OPERATIONS.md.

// TestOutage_TheOutboxIsAwayWhileTheSourcesWALGrows cuts the publisher off from its
// outbox. The slot must stay in use, the metrics and readiness must say how bad
// it is, and once the outbox is back all arrives.
func TestOutage_TheOutboxIsAwayWhileTheSourcesWALGrows(t *testing.T) {
	t.Parallel()
	n := newNight(t, map[string]string{"max_slot_wal_keep_size": "256MB", "wal_sender_timeout": "5s"})
	n.publisher.args = append(n.publisher.args, "--listen", n.listen)
	startAll(t, n.publisher, n.sender)
	n.insert(t, 1, 20)
	n.arrive(t, 20)
	eventually(t, 20*time.Second, func() bool { return n.get("/readyz") == http.StatusOK })

	n.link.Set(chaos.Weather{Silent: true})
	cut := time.Now()
	n.insert(t, 21, 20)
	n.writeLog(t, 60<<20)
	eventually(t, 30*time.Second, func() bool { return n.metric("walhook_slot_retained_bytes") > 50<<20 })
	if limit := n.metric("walhook_slot_limit_bytes"); limit != 256<<20 {
		t.Errorf("walhook_slot_limit_bytes is %g", limit)
	}
	linger(t.Context(), 9*time.Second-time.Since(cut)) // longer than the server waits for a sign of life
	active, reconnects := n.slotIs(t, "active"), n.metric("walhook_source_reconnects_total")
	// After twelve seconds without an answer of the outbox it leaves the slot to a standby.
	if took := time.Since(cut); took < 12*time.Second && (!active || reconnects != 0) {
		t.Errorf("after %s the slot was let go: %g new connections", took, reconnects)
	}
	eventually(t, 30*time.Second, func() bool { return n.get("/readyz") == http.StatusServiceUnavailable })
	if n.server.Count() != 20 {
		t.Errorf("%d deliveries of what is not stored", n.server.Count()-20)
	}

	n.link.Set(chaos.Weather{})
	n.arrive(t, 40)
	eventually(t, 30*time.Second, func() bool { return n.metric("walhook_slot_retained_bytes") < 20<<20 })
	eventually(t, 30*time.Second, func() bool { return n.get("/readyz") == http.StatusOK })
	n.publisher.stop(t)
	n.sender.stop(t)
}

// TestOutage_AGapWhileEventsStillWait has the source give up the slot while
// events wait for a receiver that is down. The publisher says so and ends with
// status 3; the sender delivers what waits; after --accept-gap all goes on.
func TestOutage_AGapWhileEventsStillWait(t *testing.T) {
	t.Parallel()
	n := newNight(t, map[string]string{"max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "48MB"})
	n.mood.Set(receiver.Status(http.StatusServiceUnavailable))
	startAll(t, n.publisher, n.sender)
	n.insert(t, 1, 50)
	eventually(t, 30*time.Second, func() bool { return n.stored(t) >= 50 })
	n.publisher.stop(t)
	n.insert(t, 51, 10) // nobody reads it, and nobody will
	for !n.slotIs(t, "lost") {
		n.writeLog(t, 24<<20)
		n.db.Exec(t, "CHECKPOINT")
	}

	if err := mustFail(t, n.publisher); exitCodeOf(err) != exitGap {
		t.Errorf("the publisher ended with %v, want exit status 3", err)
	}
	if n.publisher.said(t, "setup --accept-gap") == 0 {
		t.Error("the log does not say what to do")
	}
	n.mood.Set(receiver.Healthy())
	n.arrive(t, 50) // what waited

	mustRun(t, "setup", "--accept-gap", "--source", n.db.URL, "--outbox", n.outbox.URL, "--slot", n.slot, "--catalog", n.catalog)
	startAll(t, n.publisher)
	n.insert(t, 61, 10)
	n.arrive(t, 60)
	if open := n.ask(t, "SELECT count(*) FROM walhook.gap WHERE accepted_at IS NULL"); open != "0" {
		t.Errorf("%s gaps are not accepted", open)
	}
	n.publisher.stop(t)
	n.sender.stop(t)
}

// fullDiskSQL answers writes as a server does whose disk is full (SQLSTATE
// 53100, PostgreSQL appendix A).
const fullDiskSQL = `
CREATE FUNCTION disk_is_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'could not extend file "base/5/16384": No space left on device' USING ERRCODE = 'disk_full';
END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON walhook.%[1]s FOR EACH %[2]s EXECUTE FUNCTION disk_is_full()`

// TestOutage_TheDiskOfTheOutboxIsFull lets first the log and then every table of
// the outbox refuse to grow. While the log alone is full, what it holds is
// delivered; when attempts cannot be written either, nothing is sent that could
// not be acknowledged, but for what is in flight. Nothing is lost or repeated
// beyond that.
func TestOutage_TheDiskOfTheOutboxIsFull(t *testing.T) {
	t.Parallel()
	n := newNight(t, nil)
	n.mood.Set(receiver.Status(http.StatusServiceUnavailable))
	startAll(t, n.publisher, n.sender)
	n.insert(t, 1, 20)
	eventually(t, 30*time.Second, func() bool { return n.stored(t) >= 20 })

	n.outbox.Exec(t, fmt.Sprintf(fullDiskSQL, "position", "ROW"))
	n.insert(t, 21, 20)
	eventually(t, 30*time.Second, func() bool { return n.publisher.said(t, "No space left on device") > 0 })
	n.mood.Set(receiver.Healthy())
	n.arrive(t, 20) // the sender's work goes on

	n.outbox.Exec(t, "DROP TRIGGER full_disk ON walhook.position; DROP FUNCTION disk_is_full; "+fmt.Sprintf(fullDiskSQL, "attempt", "ROW"))
	n.arriveAtLeast(t, 21)
	eventually(t, 30*time.Second, func() bool { return n.sender.said(t, "No space left on device") > 0 })
	before, began := n.server.Count(), time.Now()
	linger(t.Context(), 3*time.Second)
	more := n.server.Count() - before
	if took := time.Since(began); float64(more) > 40*took.Seconds()/3 {
		t.Errorf("%d requests in %s that nobody could acknowledge", more, took)
	}
	for _, a := range []*actor{n.publisher, n.sender} {
		if lines := a.said(t, "No space left on device"); lines > 60 {
			t.Errorf("%s said it %d times", a.name, lines)
		}
	}

	n.outbox.Exec(t, "DROP TRIGGER full_disk ON walhook.attempt")
	n.arrive(t, 40)
	n.publisher.stop(t)
	n.sender.stop(t)
}

// night is a shop on a server of its own, whose publisher reaches the outbox
// through a link that can be cut.
type night struct {
	*shop
	server            *receiver.Server
	mood              *receiver.Switch
	publisher, sender *actor
	link              *chaos.Proxy
	listen            string
}

func newNight(t *testing.T, settings map[string]string) *night {
	t.Helper()
	n := &night{mood: receiver.NewSwitch(receiver.Healthy())}
	var err error
	n.server, err = receiver.Start(receiver.Options{Behave: func(string) receiver.Behaviour { return n.mood.Behave }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.server.Close() })
	db := pgtest.NewDatabase(t, pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: settings}))
	n.shop = newShopIn(t, db, pgtest.Database(t), 5, n.server.URL)
	n.publisher = newActor(t, "publisher", "--role", "publisher", "--source", db.URL, "--slot", n.slot, "--catalog", n.catalog)
	n.publisher.args = append(n.publisher.args, "--outbox", n.publisher.link(t, n.outbox.URL))
	n.link = n.publisher.links[0]
	n.sender = n.shop.sender(t, "sender", "--outbox", n.outbox.URL, "--retry-schedule", "300ms,500ms,1s,1s,1s,1s,1s,1s,1s,1s")
	n.listen = loopback.Address(t)
	return n
}

// insert adds count items, the first with the given id, each in a transaction
// of its own.
func (n *night) insert(t *testing.T, first, count int) {
	t.Helper()
	conn := n.db.Connect(t)
	defer conn.Close(context.WithoutCancel(t.Context()))
	for i := range count {
		account := i%n.accounts + 1
		if _, err := conn.Exec(t.Context(), "INSERT INTO item (id, account, n) VALUES ($1, $2, 0)", first+i, account); err != nil {
			t.Fatal(err)
		}
	}
}

// writeLog makes the source's log grow by something that nobody is told of.
func (n *night) writeLog(t *testing.T, size int) {
	t.Helper()
	for range size >> 20 {
		n.db.Exec(t, "SELECT pg_logical_emit_message(false, 'nobody', repeat('x', 1048576))")
	}
	n.db.Exec(t, "SELECT pg_switch_wal()")
}

// arrive waits until so many different events were delivered.
func (n *night) arrive(t *testing.T, events int) {
	t.Helper()
	n.arriveAtLeast(t, events)
	if got := n.delivered(); got != events {
		t.Errorf("%d events were delivered, want %d", got, events)
	}
}

func (n *night) arriveAtLeast(t *testing.T, events int) {
	t.Helper()
	eventually(t, 60*time.Second, func() bool { return n.delivered() >= events })
}

func (n *night) delivered() int {
	ids := map[string]bool{}
	for _, d := range n.server.Deliveries() {
		if d.OK() {
			ids[d.ID] = true
		}
	}
	return len(ids)
}

func (n *night) stored(t *testing.T) int {
	t.Helper()
	count, _ := strconv.Atoi(n.ask(t, "SELECT count(*) FROM walhook.event"))
	return count
}

// ask answers a question to the outbox, as text.
func (n *night) ask(t *testing.T, sql string) (answer string) {
	t.Helper()
	conn := n.outbox.Connect(t)
	defer conn.Close(context.WithoutCancel(t.Context()))
	if err := conn.QueryRow(t.Context(), "SELECT ("+sql+")::text").Scan(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// slotIs says whether the slot is active, or its log is in the named state.
func (n *night) slotIs(t *testing.T, state string) bool {
	t.Helper()
	conn := n.db.Connect(t)
	defer conn.Close(context.WithoutCancel(t.Context()))
	var is bool
	const sql = "SELECT CASE WHEN $2 = 'active' THEN active ELSE wal_status = $2 END FROM pg_replication_slots WHERE slot_name = $1"
	if err := conn.QueryRow(t.Context(), sql, n.slot, state).Scan(&is); err != nil {
		t.Fatal(err)
	}
	return is
}

// get answers the status of a page of the publisher; 0 for no answer.
func (n *night) get(path string) int {
	resp, err := http.Get("http://" + n.listen + path)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// metric reads one of the publisher's, without labels; -1 when it is not there.
func (n *night) metric(name string) float64 {
	resp, err := http.Get("http://" + n.listen + "/metrics")
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	page, _ := io.ReadAll(resp.Body)
	line := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(string(page))
	if line == nil {
		return -1
	}
	value, err := strconv.ParseFloat(line[1], 64)
	if err != nil {
		return -1
	}
	return value
}

// mustFail starts an actor that has to end by itself, and answers how it did.
func mustFail(t *testing.T, a *actor) error {
	t.Helper()
	log, err := os.OpenFile(a.logs, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := childCommand(t, a.args...)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	defer late.Stop()
	return cmd.Wait()
}
