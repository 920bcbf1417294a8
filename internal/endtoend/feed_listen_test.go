package endtoend

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// localReceiver is the server that listen --forward posts to. It takes what it is not
// told to refuse or to keep waiting.
type localReceiver struct {
	*httptest.Server
	secret string

	mu     sync.Mutex
	took   []string        // dids that it answered 2xx, in order
	bodies map[string]bool // webhook-id and body
	refuse map[string]int  // how often to answer 503 yet
	hold   string          // a did whose request gets no answer
	held   chan struct{}   // closed once it is there
}

var didInBody = regexp.MustCompile(`\\"id\\":(\d+)`)

func newLocalReceiver(t *testing.T) *localReceiver {
	l := &localReceiver{bodies: map[string]bool{}, refuse: map[string]int{}}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if fault := verifySignature(l.secret, body, r.Header); fault != "" {
			t.Errorf("%s: %s", body, fault)
		}
		did := didInBody.FindStringSubmatch(string(body))
		if did == nil {
			t.Errorf("%s has no id", body)
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.bodies[r.Header.Get("webhook-id")+string(body)] = true
		if l.hold == did[1] {
			close(l.held)
			l.hold = ""
			l.mu.Unlock()
			<-r.Context().Done() // the listener is gone
			l.mu.Lock()
			return
		}
		if l.refuse[did[1]] > 0 {
			l.refuse[did[1]]--
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		l.took = append(l.took, did[1])
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *localReceiver) taken() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.took)
}

// A closed terminal (SIGHUP), Ctrl-C, a service manager's TERM and a reader of its output
// that is gone (SIGPIPE) leave no webhook behind, and the secret that listen prints is that of its webhook.
func TestListen_RemovesTheWebhookThatItMade(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, carrier.Tables)
	db.Exec(t, `INSERT INTO users (id, username) VALUES (7, 'seven')`)
	address := loopback.Address(t)
	server := startChild(t, "run", "--source", db.URL, "--slot", "hangup_"+db.Name, "--setup", "--listen", address, "--admin-token", "the operator of the test")
	defer server.stop(t)
	awaitReady(t, address)
	operator := apiClient{"http://" + address + "/v2/accounts/", "the operator of the test"}
	token, _ := data(t, operator.call(t, 201, "PUT", "7/tokens", ""))["token"].(string)
	mine := apiClient{operator.base, token}
	webhooks := func() []any { return mine.call(t, 200, "GET", "7/webhooks", "")["data"].([]any) }
	for _, end := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE} {
		cmd := childCommand(t, "listen", "--from", mine.base+"7", "--token", token)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() && !strings.Contains(lines.Text(), "signing secret") {
		}
		made := webhooks()
		if len(made) != 1 {
			t.Fatalf("%d webhooks while listen runs", len(made))
		}
		id := made[0].(map[string]any)["id"].(string)
		secret, _ := data(t, mine.call(t, 200, "GET", "7/webhooks/"+id+"/secret", ""))["secret"].(string)
		if secret == "" || !strings.Contains(lines.Text(), secret) {
			t.Errorf("listen prints another secret than its webhook's: %t", secret == "")
		}
		if end == syscall.SIGPIPE {
			if err := out.Close(); err != nil {
				t.Fatal(err)
			}
			db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (1, 7, '1')`) // which listen is to print
		} else if err := cmd.Process.Signal(end); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("after %v: %v", end, err)
		}
		if left := webhooks(); len(left) != 0 {
			t.Errorf("after %v: %d webhooks are left", end, len(left))
		}
	}
}

// The road of an account's developer, with the real programs: the feed is read by walhook
// listen, which posts each event to a server of this machine. The receiver refuses, walhook
// is restarted and killed, and the listener is killed with an event in its hands: each event
// is taken, in order, and only that one may come twice.
func TestListen_LosesNothingThroughRestartsAndKills(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, carrier.Tables)
	db.Exec(t, `INSERT INTO users (id, username) VALUES (7, 'seven')`)
	address, slot := loopback.Address(t), "listen_"+db.Name
	run := []string{"run", "--source", db.URL, "--slot", slot, "--setup", "--listen", address, "--admin-token", "the operator of the test"}
	server := startChild(t, run...)
	awaitReady(t, address)
	operator := apiClient{"http://" + address + "/v2/accounts/", "the operator of the test"}
	token, _ := data(t, operator.call(t, 201, "PUT", "7/tokens", ""))["token"].(string)
	mine := apiClient{operator.base, token}
	webhook := data(t, mine.call(t, 201, "PUT", "7/webhooks", `{"data":{"name":"n","delivery":"pull"}}`))["id"].(string)
	local := newLocalReceiver(t)
	local.secret = data(t, mine.call(t, 200, "GET", "7/webhooks/"+webhook+"/secret", ""))["secret"].(string)
	local.refuse["3"], local.refuse["12"] = 4, 4 // so often that the listener connects again

	place := filepath.Join(t.TempDir(), "place")
	listen := func() *childProcess { // the address names the webhook, the environment the token
		return startChildWith(t, []string{"WALHOOK_TOKEN=" + token}, "listen", "--from", mine.base+"7/webhooks/"+webhook,
			"--forward", local.URL+"/hook", "--cursor-file", place, "--json")
	}
	n := 0
	insert := func(upto int) {
		for ; n < upto; n++ {
			db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) VALUES (%d, 7, '%d')`, n+1, n+1))
		}
	}
	took := func(want int) {
		t.Helper()
		eventually(t, patience, func() bool { return len(local.taken()) >= want })
	}
	listener := listen()
	eventually(t, patience, func() bool { return fileExists(place) }) // it has begun
	insert(5)
	took(5)

	server.stop(t)
	db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (6, 7, '6')`) // nobody reads it yet
	n++
	server = startChild(t, run...)
	insert(10)
	took(10)
	server.kill(t)
	insert(12)
	server = startChild(t, run...)
	took(12)

	local.mu.Lock()
	local.hold, local.held = "15", make(chan struct{})
	local.mu.Unlock()
	insert(20)
	<-local.held
	listener.kill(t)
	insert(25) // while no listener runs
	listener = listen()
	took(25)
	listener.stop(t)
	insert(30)
	listener = listen()
	took(30)
	listener.stop(t)

	got := local.taken()
	var want []string
	for i := range 30 {
		want = append(want, fmt.Sprint(i+1))
	}
	if unique := slices.Compact(slices.Clone(got)); !slices.Equal(unique, want) {
		t.Errorf("taken %v, want each of 1 to 30 in order", got)
	}
	if len(got) > 31 {
		t.Errorf("%d events were taken twice, want the one of the kill at most", len(got)-30)
	}
	if len(local.bodies) != 30 {
		t.Errorf("%d different ids and bodies for 30 events", len(local.bodies))
	}
	server.stop(t)
	mustRun(t, "teardown", "--source", db.URL, "--slot", slot, "--outbox")
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Two listen on one cursor file would skip events. The second ends at once, and the first
// one's end lets the next start, also where it was killed.
func TestListen_OneProcessHasACursorFile(t *testing.T) {
	t.Parallel()
	reads := make(chan struct{}, 10)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/feed") {
			fmt.Fprint(w, `{"data":{"secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},"status":"success"}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "id: c0\n\n")
		_ = http.NewResponseController(w).Flush()
		reads <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(api.Close)
	place := filepath.Join(t.TempDir(), "place")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(place, link); err != nil {
		t.Fatal(err)
	}
	args := func(file string) []string {
		return []string{"listen", "--from", api.URL + "/v2/accounts/7/webhooks/w", "--token", "t", "--cursor-file", file, "--json"}
	}
	start := func() *childProcess {
		p := startChild(t, args(link)...)
		select {
		case <-reads:
		case <-time.After(patience):
			t.Fatal("it reads no feed")
		}
		eventually(t, patience, func() bool { return fileExists(place) })
		return p
	}
	for _, end := range []func(*childProcess){func(p *childProcess) { p.kill(t) }, func(p *childProcess) { p.stop(t) }, func(p *childProcess) { p.stop(t) }} {
		first := start()
		for _, file := range []string{place, link} {
			second := startChild(t, args(file)...)
			running := time.AfterFunc(patience/4, func() { _ = second.cmd.Process.Kill() })
			err := second.cmd.Wait()
			running.Stop()
			host, _ := os.Hostname()
			want := fmt.Sprintf("walhook: --cursor-file: another listen uses %s: process %d on %s; end that one, or give this one a file of its own\n", place, first.cmd.Process.Pid, host)
			if exitCodeOf(err) != 1 || second.log() != want {
				t.Fatalf("the second one on %s: %v, %q, want exit status 1 and %q", file, err, second.log(), want)
			}
		}
		if len(reads) > 0 {
			t.Error("the second one read the feed")
		}
		end(first)
	}
}
