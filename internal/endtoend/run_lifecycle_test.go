package endtoend

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"walhook/internal/loopback"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
	"walhook/internal/receiver"
)

// TestRun_WaitsForItsDatabasesAndIsReadyOnceItReads starts a process while
// its databases are down, brings them up, takes them down and brings them up
// again.
func TestRun_WaitsForItsDatabasesAndIsReadyOnceItReads(t *testing.T) {
	t.Parallel()
	server, err := receiver.Start(receiver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	s := newShopIn(t, pgtest.NewDatabase(t, cluster), pgtest.NewDatabase(t, cluster), 1, server.URL)
	if err := cluster.Kill(); err != nil {
		t.Fatal(err)
	}
	address := loopback.Address(t)
	process := startChild(t, "run", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", s.catalog,
		"--listen", address, "--allow-cidr", "127.0.0.0/8")
	answers := func(path string, status int, text string) {
		t.Helper()
		var last string
		defer func() {
			if t.Failed() {
				t.Logf("%s answered %s", path, last)
			}
		}()
		eventually(t, 40*time.Second, func() bool {
			resp, err := http.Get("http://" + address + path)
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			last = strconv.Itoa(resp.StatusCode) + " " + string(body)
			return resp.StatusCode == status && strings.Contains(string(body), text)
		})
	}
	answers("/healthz", 200, "ok")
	answers("/readyz", 503, "start: waiting for the outbox")
	answers("/metrics", 200, "walhook_outbox_up 0")

	restart := func() {
		t.Helper()
		if err := cluster.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	restart()
	answers("/readyz", 200, "source: ok")
	s.db.Exec(t, "INSERT INTO item (id, account) VALUES (1, 1)")
	eventually(t, 20*time.Second, func() bool { return server.Count() == 1 })

	if err := cluster.Kill(); err != nil {
		t.Fatal(err)
	}
	answers("/readyz", 503, "outbox: does not answer")
	answers("/readyz", 503, "source: connecting")
	answers("/healthz", 200, "ok")
	restart()
	answers("/readyz", 200, "source: ok")
	s.db.Exec(t, "INSERT INTO item (id, account) VALUES (2, 1)")
	eventually(t, 40*time.Second, func() bool { return server.Count() >= 2 })
	process.stop(t)
}

// A stop at the start, while the outbox has not answered yet, stores nothing and leaves
// nothing unstored.
func TestRun_AStopBeforeTheOutboxAnswersIsNoWarning(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mute.Close() })
	url := "postgres://walhook@" + mute.Addr().String() + "/walhook?sslmode=disable"
	process := startChild(t, "run", "--source", url, "--outbox", url, "--listen", "off")
	conn, err := mute.Accept() // and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	process.stop(t)
	if log := process.log(); strings.Contains(log, "may be sent again") || !strings.Contains(log, "stopped") {
		t.Errorf("log:\n%s", log)
	}
}

// TestRun_ACleanStopEndsInTimeAndRepeatsNothing stops a process by SIGTERM in
// the middle of its work, again and again: what it had in flight is finished and
// acknowledged, and the next process goes on behind it.
func TestRun_ACleanStopEndsInTimeAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	server, err := receiver.Start(receiver.Options{Behave: func(string) receiver.Behaviour {
		return receiver.Slow(200*time.Millisecond, receiver.Healthy())
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	const accounts, items = 8, 1500
	s := newShop(t, accounts, server.URL)
	s.db.Exec(t, `INSERT INTO item (id, account) SELECT n, 1 + n % `+strconv.Itoa(accounts)+` FROM generate_series(1, `+strconv.Itoa(items)+`) n`)
	stops := 0
	for last := -1; server.Count() < items; stops++ {
		if stops > 20 || server.Count() == last {
			t.Fatalf("%d deliveries after %d lives, no more than before", server.Count(), stops)
		}
		last = server.Count()
		process := startChild(t, "run", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", s.catalog,
			"--listen", "off", "--allow-cidr", "127.0.0.0/8")
		goal := min(last+items/10, items)
		eventually(t, 40*time.Second, func() bool { return server.Count() >= goal })
		asked := time.Now()
		process.stop(t)
		if took := time.Since(asked); took > 15*time.Second {
			t.Errorf("stopped %s after SIGTERM", took)
		}
	}
	if stops < 2 {
		t.Errorf("only %d stops: the test shows little", stops)
	}
	var ids []string
	for _, d := range server.Deliveries() {
		ids = append(ids, d.ID)
	}
	slices.Sort(ids)
	if n := len(slices.Compact(slices.Clone(ids))); n != items || len(ids) != items {
		t.Errorf("%d deliveries of %d events, want each of %d once", len(ids), n, items)
	}
}
