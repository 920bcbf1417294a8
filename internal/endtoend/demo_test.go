package endtoend

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// demoCommand is a demo whose throwaway files go to a folder of the test's.
func demoCommand(t *testing.T, args ...string) (cmd *exec.Cmd, temp string) {
	t.Helper()
	temp = privateTemp(t)
	cmd = childCommand(t, append([]string{"demo"}, args...)...)
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	return cmd, temp
}

// privateTemp is a folder for a child's throwaway files, a server's among them.
func privateTemp(t *testing.T) string {
	t.Helper()
	temp, err := os.MkdirTemp("", "walhook-child-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(temp, 0o755); err != nil { // the server's user must reach it
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(temp) })
	return temp
}

func wantNothingLeft(t *testing.T, temp string) {
	t.Helper()
	eventually(t, 10*time.Second, func() bool {
		left, err := filepath.Glob(filepath.Join(temp, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(left) == 0
	})
}

// demoSummary is what 'walhook demo --json' prints.
type demoSummary struct {
	OK              bool
	Expected        int `json:"events_expected"`
	Delivered       int
	Waiting         int `json:"waiting_for_dead_receivers"`
	Expired, Lost   int
	OrderViolations int      `json:"order_violations"`
	WrongBodies     int      `json:"wrong_bodies"`
	SchemasMissing  []string `json:"schemas_missing"`
	BreakersOpen    []string `json:"breakers_open"`
}

// small says that the demo came to too little to show anything: a busy machine commits less.
func (s demoSummary) small() bool {
	return s.Delivered < 100 || s.Waiting == 0 || len(s.BreakersOpen) == 0
}

func TestDemo_KeepsTheContract(t *testing.T) {
	t.Parallel()
	for _, length := range []string{"12s", "40s", "100s"} {
		if !keepsTheContract(t, length).small() {
			return
		}
	}
	t.Error("less than 100 events are delivered, or none waits and no breaker is open, though some receivers are dead")
}

func keepsTheContract(t *testing.T, length string) (summary demoSummary) {
	t.Helper()
	cmd, temp := demoCommand(t, "--duration", length, "--json", "--seed", "3")
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, errOut.String())
	}
	if err := json.Unmarshal(out, &summary); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !summary.OK || summary.Lost+summary.OrderViolations+summary.WrongBodies > 0 || len(summary.SchemasMissing) > 0 {
		t.Errorf("%s", out)
	}
	if summary.Delivered+summary.Waiting+summary.Expired != summary.Expected {
		t.Errorf("the sums do not add up: %s", out)
	}
	// A busy machine commits less, and then less is expected: most of it arrives.
	if 4*summary.Delivered < 3*summary.Expected {
		t.Errorf("%d of %d are delivered: only what is for dead receivers may wait", summary.Delivered, summary.Expected)
	}
	wantNothingLeft(t, temp)
	return summary
}

// A newcomer gets a link, opens it, and sees an account with webhooks of its own.
func TestDemo_PrintsALinkThatOpensItsPortal(t *testing.T) {
	t.Parallel()
	cmd, temp := demoCommand(t, "--portal")
	out := &lockedText{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`http://\S+/enter\?link=(\S+)`)
	eventually(t, patience, func() bool { return link.MatchString(out.String()) })
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	found := link.FindStringSubmatch(out.String())
	page := func(response *http.Response, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("HTTP %d, %v: %s", response.StatusCode, err, text)
		}
		return string(text)
	}
	home := page(client.PostForm(strings.TrimSuffix(found[0], "?link="+found[1]), url.Values{"link": {found[1]}}))
	for _, name := range []string{"Account webhook", "CRM", "Billing", "Faxes"} {
		if !strings.Contains(home, name) {
			t.Errorf("the overview lacks %q:\n%s", name, home)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "events expected") {
		t.Errorf("%v:\n%s", err, out)
	}
	wantNothingLeft(t, temp)
}

// lockedText is what a running program prints.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
