package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	"walhook/internal/carrier"
	"walhook/sender"
)

// busyView is a demo in its 18th second, with receivers of all kinds.
func busyView() *demoView {
	now := time.Date(2026, 3, 9, 12, 0, 0, 0, time.UTC)
	v := newDemoView(demoOptions{duration: 30 * time.Second, rate: 40, accounts: 24, seed: 1}, &strings.Builder{})
	v.now = func() time.Time { return now }
	v.step("starting a throwaway PostgreSQL")
	v.step("preparing publication, slot and initial snapshot")
	v.begin()
	v.read(demoReading{})
	reading := demoReading{committed: 716, appended: map[int64]demoBacklog{}, open: map[int64]bool{}}
	for i := range 24 {
		account := fmt.Sprint(carrier.AccountID(i))
		endpoint := int64(i + 1)
		reading.appended[endpoint] = demoBacklog{account: account, events: 12 + i%5}
		r := sender.AttemptReport{
			Account: account, Endpoint: endpoint, Schema: "dids", Type: "insert", Attempt: 1, Status: 200,
			Outcome: "delivered", Reason: "2xx", CommittedAt: now, WebhookID: fmt.Sprintf("evt_00000000015D3A%02X_1", i),
		}
		for n := range 12 {
			r.At, r.Duration = now.Add(time.Duration(n)*time.Millisecond), time.Duration(1+i)*time.Millisecond
			switch demoClass(i) {
			case classDead:
				r.Status, r.Outcome, r.Reason, reading.open[endpoint] = 0, "retry", "refused", true
			case classFlaky:
				if r.Status, r.Outcome, r.Reason = 200, "delivered", "2xx"; n%4 == 3 {
					r.Status, r.Outcome, r.Reason = 503, "pause", "503"
				}
			case classSlow:
				r.Duration += 150 * time.Millisecond
			}
			v.attempt(r)
		}
	}
	now = now.Add(18 * time.Second)
	v.read(reading)
	return v
}

// What people see, at the sizes that their windows have.
func TestDemoScreen_FitsTheWindow(t *testing.T) {
	t.Parallel()
	v := busyView()
	for _, size := range []struct{ width, height int }{{80, 24}, {120, 40}, {40, 10}} {
		f := v.snapshot()
		got := ansi.Strip(f.draw(size.width, size.height)) + "\n"
		file := filepath.Join("testdata", fmt.Sprintf("demo_%dx%d.txt", size.width, size.height))
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%d×%d: go test -run %s -update writes what is there now:\n%s", size.width, size.height, t.Name(), got)
		}
	}
}

// No window is too small, and nothing wraps in it, whatever the demo is doing.
func TestDemoScreen_BreaksInNoWindow(t *testing.T) {
	t.Parallel()
	starting := newDemoView(demoOptions{duration: time.Hour, accounts: 100_000}, &strings.Builder{})
	starting.step("no PostgreSQL server on this machine: downloading 17, to a directory with a long name")
	finishing := busyView()
	finishing.idle()
	finishing.step("the carrier is idle; waiting for outstanding deliveries")
	failing := busyView()
	fmt.Fprintf(failing, "error of a receiver that would like to clear this screen: \x1b[2J%s\n", strings.Repeat("漢", 200))
	for name, v := range map[string]*demoView{"before": newDemoView(demoOptions{}, &strings.Builder{}), "starting": starting, "busy": busyView(), "finishing": finishing, "failing": failing} {
		for _, width := range []int{1, 2, 3, 10, 20, 39, 40, 50, 59, 60, 70, 79, 80, 109, 110, 200} {
			for _, height := range []int{1, 2, 3, 5, 8, 9, 10, 11, 12, 16, 20, 24, 50} {
				f := v.snapshot()
				text := f.draw(width, height)
				lines := strings.Split(text, "\n")
				if len(lines) > height {
					t.Fatalf("%s in %d×%d: %d lines", name, width, height, len(lines))
				}
				for _, line := range lines {
					if ansi.StringWidth(line) > width {
						t.Fatalf("%s in %d×%d: %q", name, width, height, line)
					}
				}
				if strings.Contains(text, "\x1b[2J") {
					t.Fatalf("%s: the log clears the screen", name)
				}
			}
		}
	}
}

// The totals count every attempt, although the screen shows the latest ones only.
func TestDemoView_CountsWhatItDoesNotShow(t *testing.T) {
	t.Parallel()
	v := newDemoView(demoOptions{accounts: 24}, &strings.Builder{})
	account := fmt.Sprint(carrier.AccountID(0))
	const attempts = 100_000
	for range attempts {
		v.attempt(sender.AttemptReport{Account: account, Endpoint: 1, Outcome: "delivered", Reason: "2xx"})
	}
	v.read(demoReading{appended: map[int64]demoBacklog{1: {account, attempts + 7}}})
	f := v.snapshot()
	if total := f.total(); total.delivered != attempts || total.waiting != 7 {
		t.Errorf("%+v", total)
	}
	if len(f.latest) > 2*keptAttempts || len(f.kinds[classHealthy].latencies) > 2*keptLatencies {
		t.Errorf("%d attempts and %d latencies are kept", len(f.latest), len(f.kinds[classHealthy].latencies))
	}
}

// In a pipe an idle carrier is no reason to repeat the same line.
func TestDemoView_SaysTheSameOnlyEveryTenSeconds(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	v := newDemoView(demoOptions{accounts: 24, duration: time.Second}, &out)
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	v.now = func() time.Time { return now }
	v.begin()
	began := now
	now = now.Add(9 * time.Second) // its last transaction takes long
	out.Reset()
	if v.read(demoReading{}); !strings.HasPrefix(out.String(), "1 s of 1s: ") {
		t.Error(out.String())
	}
	now = began
	v.printed = ""
	v.idle()
	out.Reset()
	account := fmt.Sprint(carrier.AccountID(0))
	for second := range 35 {
		reading := demoReading{committed: 5}
		if second == 15 {
			reading.appended = map[int64]demoBacklog{1: {account, 7}}
		}
		v.read(reading)
		now = now.Add(time.Second)
	}
	// At 0, 10, 15 (a change) and 25.
	if lines := strings.Count(out.String(), "\n"); lines != 4 || strings.Count(out.String(), " 7 events waiting") != 2 {
		t.Errorf("%d lines:\n%s", lines, out.String())
	}
}

func TestDemo_RefusesWhatItsHelpExcludes(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--duration", "999ms"}, {"--duration", "24h1s"}, {"--rate", "-1"}, {"--rate", "100001"}, {"--rate", "NaN"},
		{"--accounts", "9"}, {"--accounts", "100001"}, {"--log-level", "loud"},
	} {
		root := newRootCommand()
		root.SetArgs(append([]string{"demo"}, args...))
		if err := root.ExecuteContext(t.Context()); exitStatus(t.Context(), err) != exitUsage || !strings.Contains(err.Error(), args[0]) {
			t.Errorf("%v: %v", args, err)
		}
	}
}
