package endtoend

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/internal/carrier"
	"walhook/internal/pgtest"
)

// TestRun_DeliversAnInsertAsTheContractSays goes the whole way by the commands
// that an operator types: setup, run, and an INSERT on the source.
func TestRun_DeliversAnInsertAsTheContractSays(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	requests := make(chan *http.Request, 10)
	bodies := make(chan []byte, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- r
		bodies <- body
	}))
	t.Cleanup(server.Close)
	db.Exec(t, carrier.Tables)
	db.Exec(t, fmt.Sprintf(`INSERT INTO users (id, username, web_hook_url) VALUES (7, 'seven', '%s/hook?x=1')`, server.URL))

	slot := "first_" + db.Name
	mustRun(t, "setup", "--source", db.URL, "--slot", slot)
	process := startChild(t, "run", "--source", db.URL, "--slot", slot, "--listen", "off", "--allow-cidr", "127.0.0.0/8")
	db.Exec(t, `INSERT INTO dids (id, user_id, number, inbound_cnam, state) VALUES (42, 7, '3125551212', NULL, 'IL')`)

	var request *http.Request
	var body []byte
	select {
	case request = <-requests:
		body = <-bodies
	case <-time.After(patience):
		t.Fatal("nothing arrived")
	}
	const want = `{"type":"insert","schema":"dids","data":"{\"id\":42,\"user_id\":7,\"call_flow_id\":null,\"channel_group_id\":null,` +
		`\"voicemail_inbox_id\":null,\"number\":\"3125551212\",\"number_type\":\"local\",\"state\":\"IL\",\"ratecenter\":null,` +
		`\"sms_enabled\":false,\"xmpp_enabled\":false,\"inbound_cnam\":null}"}`
	if string(body) != want {
		t.Errorf("body\n got %s\nwant %s", body, want)
	}
	if request.Method != http.MethodPost || request.URL.RequestURI() != "/hook?x=1" {
		t.Errorf("request line is %s %s", request.Method, request.URL.RequestURI())
	}
	for name, pattern := range map[string]string{
		"Content-Type":      `^application/json$`,
		"User-Agent":        `^walhook/\S+$`,
		"Webhook-Id":        `^evt_[0-9A-F]{16}_1$`,
		"Webhook-Timestamp": `^\d{10}$`,
		"Webhook-Signature": `^v1,[A-Za-z0-9+/]{43}=$`,
	} {
		if got := request.Header.Get(name); !regexp.MustCompile(pattern).MatchString(got) {
			t.Errorf("header %s is %q", name, got)
		}
	}
	secret := mustRun(t, "endpoints", "secret", "7", "--outbox", db.URL)
	verify(t, secret, request.Header, body)
	process.stop(t)
	mustRun(t, "teardown", "--source", db.URL, "--slot", slot, "--outbox")
	var left int
	const sql = `SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())
		+ (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_namespace WHERE nspname = 'walhook')`
	if err := db.Connect(t).QueryRow(t.Context(), sql).Scan(&left); err != nil || left != 0 {
		t.Errorf("teardown left %d things behind: %v", left, err)
	}
}

// verify has the official library check a signature, and refuse a forged body.
func verify(t *testing.T, secret string, header http.Header, body []byte) {
	t.Helper()
	hook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := hook.Verify(body, header); err != nil {
		t.Errorf("the official library refuses the signature: %v", err)
	}
	if err := hook.Verify(append([]byte(strconv.Itoa(1)), body...), header); err == nil {
		t.Error("the official library accepts a forged body")
	}
}
