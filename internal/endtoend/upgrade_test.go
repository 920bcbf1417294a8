package endtoend

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walhook/internal/pgtest"
	"walhook/internal/receiver"
)

// TestUpgrade_AFleetUnderLoad runs publisher, standby and two senders of an older
// commit, and replaces them under load as docs/OPERATIONS.md says ("Upgrade"): setup
// first, then the standby, the publisher and the senders. Nothing is lost, nothing comes
// twice, and no pause is longer than that of a restart.
func TestUpgrade_AFleetUnderLoad(t *testing.T) {
	if *upgradeFlag == "" {
		t.Skip("no -upgrade COMMIT")
	}
	older := buildCommit(t, *upgradeFlag)
	server, err := receiver.Start(receiver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s := newShopWithoutSetup(t, pgtest.Database(t), pgtest.Database(t), fleetAccounts, server.URL)
	if out, err := childCommandOf(t, older, s.setup()...).CombinedOutput(); err != nil {
		t.Fatalf("setup of %s: %v\n%s", *upgradeFlag, err, out)
	}
	f := &fleet{shop: s, server: server, conn: s.outbox.Connect(t)}
	first, second := s.publisher(t), s.publisher(t)
	senders := []*actor{s.sender(t, "sender-1", "--outbox", s.outbox.URL), s.sender(t, "sender-2", "--outbox", s.outbox.URL)}
	first.name, second.name = "publisher-1", "publisher-2"
	for _, a := range []*actor{first, second, senders[0], senders[1]} {
		a.of = older
	}
	startAll(t, first)
	reads(t, first, 1)
	startAll(t, second, senders[0], senders[1])
	waits(t, second, 1)
	f.dealtAmong(t, 2)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	busy := make(chan error, 1)
	go func() { busy <- s.counting(t, ctx, fleetRecords, 200) }()
	more := func() {
		t.Helper()
		count := server.Count()
		eventually(t, 30*time.Second, func() bool { return server.Count() >= count+400 })
	}
	more()
	steps := []step{{"load", time.Now()}}
	did := func(what string) { steps = append(steps, step{what, time.Now()}) }

	version := f.version(t)
	mustRun(t, s.setup()...)
	did("setup")
	more()
	second.replace(t)
	waits(t, second, 2)
	did("standby")
	more()
	first.replace(t)
	reads(t, second, 1)
	did("publisher")
	waits(t, first, 1)
	more()
	for _, sender := range senders {
		sender.replace(t)
		f.dealtAmong(t, 2)
		did(sender.name)
		more()
	}
	did("end")
	cancel()
	if err := <-busy; err != nil {
		t.Fatal(err)
	}

	var report receiver.Report
	eventually(t, time.Minute, func() bool {
		report = receiver.Verify(s.allExpected(), server.Deliveries(), receiver.Terms{})
		return report.Lost == 0
	})
	eventually(t, 10*time.Second, func() bool { return f.settled(t) })
	t.Logf("%+v", report.Counts)
	if !report.OK() || report.Duplicates > 0 {
		t.Errorf("%d events came twice, and every stop was clean\n%v", report.Duplicates, report.Faults)
	}
	acknowledgedOnce(t, f.conn)
	f.judgePauses(t, steps)
	if migrated := f.version(t); migrated > version {
		refusesTheNewer(t, older, s)
	} else {
		t.Logf("both versions are at migration %d: going back is starting the older one", version)
	}
	for _, a := range append(senders, first, second) {
		a.stop(t)
	}
}

// version is the last migration of the outbox.
func (f *fleet) version(t *testing.T) (version int) {
	t.Helper()
	if err := f.conn.QueryRow(t.Context(), "SELECT version FROM walhook.schema_version").Scan(&version); err != nil {
		t.Fatal(err)
	}
	return version
}

// step is what an operator did, and when it was done.
type step struct {
	what string
	done time.Time
}

// longestPause is more than a publisher or a sender takes to take over, on a busy machine.
const longestPause = 8 * time.Second

// judgePauses says how long no event arrived while each step was taken.
func (f *fleet) judgePauses(t *testing.T, steps []step) {
	t.Helper()
	deliveries := f.server.Deliveries()
	for i := 1; i < len(steps); i++ {
		last, longest := steps[i-1].done, time.Duration(0)
		for _, d := range deliveries {
			if d.Arrived.Before(steps[i-1].done) || d.Arrived.After(steps[i].done) {
				continue
			}
			longest, last = max(longest, d.Arrived.Sub(last)), d.Arrived
		}
		longest = max(longest, steps[i].done.Sub(last))
		t.Logf("%s: %s, nothing arrived for at most %s", steps[i].what, steps[i].done.Sub(steps[i-1].done).Round(time.Millisecond), longest.Round(time.Millisecond))
		if longest > longestPause {
			t.Errorf("%s: nothing arrived for %s", steps[i].what, longest)
		}
	}
}

// refusesTheNewer checks that the older walhook does not start on the migrated outbox.
func refusesTheNewer(t *testing.T, older string, s *shop) {
	t.Helper()
	out, err := childCommandOf(t, older, "run", "--listen", "off", "--role", "sender", "--outbox", s.outbox.URL).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the outbox is newer than this walhook") {
		t.Errorf("the older one on the newer outbox: %v\n%s", err, out)
	}
}

func reads(t *testing.T, a *actor, times int) {
	t.Helper()
	// Before the words were changed, the line was "reading".
	eventually(t, 30*time.Second, func() bool { return a.said(t, `"replication started"`)+a.said(t, `"msg":"reading"`) >= times })
}

func waits(t *testing.T, a *actor, times int) {
	t.Helper()
	eventually(t, 30*time.Second, func() bool { return a.said(t, "waiting as standby") >= times })
}

// replace ends the process as an operator does, and starts the program under test in its
// place.
func (a *actor) replace(t *testing.T) {
	t.Helper()
	a.stop(t)
	a.of = ""
	if err := a.start(t); err != nil {
		t.Fatal(err)
	}
}

// buildCommit builds walhook as it was at a commit.
func buildCommit(t *testing.T, commit string) string {
	t.Helper()
	folder := t.TempDir()
	program := filepath.Join(folder, "older-walhook")
	const script = `set -eo pipefail; git -C "$1" archive "$2" | tar -x -C "$3"; cd "$3"; go build -trimpath -buildvcs=false -o "$4" ./cmd/walhook`
	if out, err := exec.CommandContext(t.Context(), "bash", "-c", script, "build", repository, commit, folder, program).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", commit, err, out)
	}
	return program
}
