package endtoend

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/internal/carrier"
	"walhook/internal/carrier/carriertest"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// otherFlag names a walhook that was built from another commit:
//
//	git worktree add /tmp/before COMMIT && (cd /tmp/before && go build -o /tmp/walhook.before ./cmd/walhook)
//	go test ./internal/endtoend -run SameBytes -other /tmp/walhook.before -v
var otherFlag = flag.String("other", "", "a walhook of another commit, which TestSameBytes compares this one with; none: with itself")

// TestSameBytes_AsAnotherBuild has two builds of walhook read the same WAL, each
// with a slot and an outbox of its own, and compares their requests: the same
// ones have to reach the same URLs with the same ids, headers and bodies.
func TestSameBytes_AsAnotherBuild(t *testing.T) {
	t.Parallel()
	const accounts = 20
	transactions := 200
	if *otherFlag != "" {
		transactions = 3000
	}
	recorder := &requestRecorder{}
	server := httptest.NewServer(recorder)
	t.Cleanup(server.Close)
	urlFor := func(i int) string { return server.URL + "/hooks/" + strconv.Itoa(1000+i) }

	db := pgtest.Database(t)
	conn := db.Connect(t)
	defer conn.Close(context.WithoutCancel(t.Context()))
	if err := carrier.Create(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if err := carrier.Seed(t.Context(), conn, accounts, 1, urlFor); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, `INSERT INTO users (id, username, web_hook_url) VALUES (990, 'the last', '`+server.URL+`/hooks/990/last')`)
	builds := []*recordedBuild{
		newRecordedBuild(t, db, "other", cmp.Or(*otherFlag, binary)),
		newRecordedBuild(t, db, "this", binary),
	}
	for _, b := range builds { // webhooks of each format and verb are there before the first change
		b.start(t)
		b.subscribe(t, server.URL)
		b.process.stop(t)
	}
	activity, err := carrier.NewActivity(t.Context(), db.URL, carrier.Options{Accounts: accounts, Seed: 1, URLFor: urlFor, BulkRows: 100, FixedURLs: true})
	if err != nil {
		t.Fatal(err)
	}
	defer activity.Close()
	stats := carriertest.RunUntil(t, activity, 100, carriertest.Committed(transactions))
	db.Exec(t, `INSERT INTO dids (user_id, number) VALUES (990, '1')`)

	// What a closed account still gets depends on when it is sent.
	var open []string
	if err := conn.QueryRow(t.Context(), `SELECT array_agg(id::text) FROM users`).Scan(&open); err != nil {
		t.Fatal(err)
	}

	var sent [2]map[string]string
	for i, b := range builds {
		recorder.begin(b.secrets)
		b.start(t)
		eventually(t, 2*time.Minute, recorder.sawTheLast)
		eventually(t, 2*time.Minute, func() bool {
			m := scrape(t, b.address)
			return m.sum("walhook_outbox_backlog") == 0 && recorder.quietFor(time.Second)
		})
		b.process.stop(t)
		sent[i] = recorder.requests(t, open)
	}
	same := 0
	for _, key := range slices.Sorted(maps.Keys(sent[0])) {
		switch now, ok := sent[1][key]; {
		case !ok:
			t.Errorf("the other build alone sends %s:\n%s", key, sent[0][key])
		case now != sent[0][key]:
			t.Errorf("%s differs:\nthe other build sends\n%s\nthis build sends\n%s", key, sent[0][key], now)
		default:
			same++
		}
	}
	for key, request := range sent[1] {
		if _, ok := sent[0][key]; !ok {
			t.Errorf("this build alone sends %s:\n%s", key, request)
		}
	}
	t.Logf("%d transactions, %d requests are the same", stats.Committed, same)
	if same < stats.Committed {
		t.Errorf("%d requests for %d transactions are too few to compare", same, stats.Committed)
	}
}

// recordedBuild is a build of walhook with a slot and an outbox of its own.
type recordedBuild struct {
	binary  string
	flags   []string // of setup
	address string
	process *childProcess
	secrets map[string]string // by path
}

func newRecordedBuild(t *testing.T, db *pgtest.DB, name, binary string) *recordedBuild {
	t.Helper()
	b := &recordedBuild{binary: binary, secrets: map[string]string{}}
	b.flags = []string{"--source", db.URL, "--outbox", pgtest.Database(t).URL, "--slot", name + "_" + db.Name, "--publication", name}
	setup := b.command(t, append([]string{"setup"}, b.flags...))
	if out, err := setup.CombinedOutput(); err != nil {
		t.Fatalf("setup of %s: %v\n%s", binary, err, out)
	}
	return b
}

func (b *recordedBuild) command(t *testing.T, args []string) *exec.Cmd {
	t.Helper()
	return exec.CommandContext(t.Context(), b.binary, args...)
}

func (b *recordedBuild) start(t *testing.T) {
	t.Helper()
	b.address = loopback.Address(t)
	args := append([]string{"run", "--listen", b.address, "--allow-cidr", "127.0.0.0/8", "--admin-token", "the operator of the test"}, b.flags...)
	b.process = startCommand(t, b.command(t, args), args)
	awaitReady(t, b.address)
}

// subscribe makes webhooks of each kind for some of the accounts.
func (b *recordedBuild) subscribe(t *testing.T, url string) {
	t.Helper()
	api := apiClient{"http://" + b.address + "/v2/accounts/", "the operator of the test"}
	for account := 1000; account < 1006; account++ {
		for i, fields := range []string{
			`"hook":"records"`,
			`"hook":"records","schemas":["dids","transactions"],"types":["insert","delete"]`,
			`"hook":"records","include_subaccounts":true,"custom_data":{"k":"ä \" ü"}`,
			`"hook":"all"`, `"hook":"all","format":"json"`, `"hook":"all","format":"form"`,
			`"hook":"records","http_verb":"get"`, `"hook":"records","http_verb":"put","format":"form","custom_data":{"n":"1"}`,
		} {
			path := fmt.Sprintf("/hooks/%d/%d", account, i)
			made := data(t, api.call(t, 201, "PUT", strconv.Itoa(account)+"/webhooks", `{"data":{"name":"n","uri":"`+url+path+`?q=1",`+fields+`}}`))
			secret := data(t, api.call(t, 200, "GET", strconv.Itoa(account)+"/webhooks/"+made["id"].(string)+"/secret", ""))
			b.secrets[path] = secret["secret"].(string)
		}
	}
}

// requestRecorder keeps what reaches it.
type requestRecorder struct {
	mu       sync.Mutex // guards all below
	secrets  map[string]string
	arrivals []recordedRequest
	last     bool
	newest   time.Time
}

type recordedRequest struct{ account, key, text, fault string }

func (r *requestRecorder) ServeHTTP(_ http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return // cut off: it comes again
	}
	account, _, _ := strings.Cut(strings.TrimPrefix(request.URL.Path, "/hooks/"), "/")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.newest = time.Now()
	r.last = r.last || account == "990"
	one := recordedRequest{account: account, key: request.URL.Path + " " + request.Header.Get("webhook-id")}
	// The library verifies what it can parse, which is JSON.
	secret, known := r.secrets[request.URL.Path]
	if known && strings.HasPrefix(request.Header.Get("Content-Type"), "application/json") {
		one.fault = verifySignature(secret, body, request.Header)
	}
	// Its moment and the signature over it differ from one attempt to the next.
	header := request.Header.Clone()
	for _, name := range []string{"Webhook-Timestamp", "Webhook-Signature"} {
		if header.Get(name) == "" {
			one.fault = "no " + name
		}
		header.Set(name, "…")
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s %s %s\nHost: %s\n", request.Method, request.RequestURI, request.Proto, request.Host)
	_ = header.Write(&text)
	text.WriteString("\n")
	text.Write(body)
	one.text = text.String()
	r.arrivals = append(r.arrivals, one)
}

func verifySignature(secret string, body []byte, header http.Header) (fault string) {
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err == nil {
		err = webhook.Verify(body, header)
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func (r *requestRecorder) begin(secrets map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets, r.arrivals, r.last = secrets, nil, false
}

func (r *requestRecorder) sawTheLast() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *requestRecorder) quietFor(length time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.newest) > length
}

// requests are what came for the accounts, by URL and id. One that came twice
// has to be the same.
func (r *requestRecorder) requests(t *testing.T, accounts []string) map[string]string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]string{}
	for _, one := range r.arrivals {
		if !slices.Contains(accounts, one.account) {
			continue
		}
		if one.fault != "" {
			t.Errorf("%s: %s", one.key, one.fault)
		}
		if before, ok := all[one.key]; ok && before != one.text {
			t.Errorf("%s came with two texts:\n%s\n%s", one.key, before, one.text)
		}
		all[one.key] = one.text
	}
	return all
}
