package endtoend

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// arrival is a request that a receiver got.
type arrival struct {
	path   string
	header http.Header
	body   []byte
}

// TestSubscriptions_LiveFromCreationToDeletion is an account's whole way with
// the API, as one process serves and delivers it.
func TestSubscriptions_LiveFromCreationToDeletion(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	arrivals := make(chan arrival, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		arrivals <- arrival{r.URL.RequestURI(), r.Header, body}
		if r.URL.Path == "/mine" && strings.Contains(string(body), "refused") {
			w.WriteHeader(http.StatusGone)
		}
	}))
	t.Cleanup(server.Close)
	next := func(path string) arrival {
		t.Helper()
		select {
		case a := <-arrivals:
			if a.path != path {
				t.Fatalf("%s arrived at %s, want %s", a.body, a.path, path)
			}
			return a
		case <-time.After(patience):
			t.Fatalf("nothing arrived at %s", path)
			return arrival{}
		}
	}
	db.Exec(t, carrier.Tables)
	db.Exec(t, `INSERT INTO users (id, username) VALUES (7, 'seven'), (8, 'eight')`)
	address := loopback.Address(t)
	slot := "api_" + db.Name
	process := startChild(t, "run", "--source", db.URL, "--slot", slot, "--setup", "--listen", address, "--allow-cidr", "127.0.0.0/8",
		"--admin-token", "the operator of the test")
	defer mustRun(t, "teardown", "--source", db.URL, "--slot", slot, "--outbox")
	defer process.stop(t)
	awaitReady(t, address)
	operator := apiClient{"http://" + address + "/v2/accounts/", "the operator of the test"}
	token, _ := data(t, operator.call(t, 201, "PUT", "7/tokens", ""))["token"].(string)
	mine := apiClient{operator.base, token}

	// What may not be dialled is told at once, in words.
	for _, uri := range []string{"http://10.0.0.1/", "http://169.254.169.254/latest", "http://[::ffff:10.0.0.1]/", "http://10。0。0。1/"} {
		answer := mine.call(t, 400, "PUT", "7/webhooks", `{"data":{"name":"n","uri":"`+uri+`"}}`)
		if !strings.Contains(fmt.Sprint(answer["message"]), "is not public") {
			t.Errorf("%s: %v", uri, answer)
		}
	}

	hook := data(t, mine.call(t, 201, "PUT", "7/webhooks", `{"data":{"name":"mine","uri":"`+server.URL+`/mine?a=b","schemas":["dids"]}}`))
	path := "7/webhooks/" + hook["id"].(string)
	secret := data(t, mine.call(t, 200, "GET", path+"/secret", ""))["secret"].(string)

	db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (1, 7, '1'); INSERT INTO dids (id, user_id, number) VALUES (2, 8, 'of another')`)
	first := next("/mine?a=b")
	verify(t, secret, first.header, first.body)
	if !strings.HasPrefix(string(first.body), `{"type":"insert","schema":"dids","data":"{\"id\":1,`) {
		t.Errorf("body %s", first.body)
	}
	id := first.header.Get("webhook-id")

	tried := data(t, mine.call(t, 200, "POST", path+"/test", ""))
	test := next("/mine?a=b")
	verify(t, secret, test.header, test.body)
	if tried["outcome"] != "delivered" || tried["status"] != 200.0 || tried["event_id"] != test.header.Get("webhook-id") || !strings.HasPrefix(test.header.Get("webhook-id"), "test_") {
		t.Errorf("test %v, with header %v", tried, test.header)
	}

	var events []any
	eventually(t, 20*time.Second, func() bool {
		events, _ = mine.call(t, 200, "GET", path+"/events", "")["data"].([]any)
		return len(events) == 1 && events[0].(map[string]any)["state"] == "delivered"
	})
	attempts, _ := mine.call(t, 200, "GET", "7/webhooks/attempts", "")["data"].([]any)
	if len(attempts) != 1 || attempts[0].(map[string]any)["event_id"] != id || attempts[0].(map[string]any)["outcome"] != "delivered" {
		t.Errorf("attempts %v", attempts)
	}

	// Again, by the API and from the command line: the same id and bytes.
	mine.call(t, 202, "POST", path+"/replay", `{"data":{"event_ids":["`+id+`"]}}`)
	if again := next("/mine?a=b"); again.header.Get("webhook-id") != id || string(again.body) != string(first.body) {
		t.Errorf("replayed %s %s", again.header.Get("webhook-id"), again.body)
	}
	eventually(t, 20*time.Second, func() bool {
		return strings.Contains(mustRun(t, "replay", "--outbox", db.URL, "--account", "7", "--webhook", hook["id"].(string), "--since", "1h", "--dry-run"), ": 1 events")
	})
	if out := mustRun(t, "replay", "--outbox", db.URL, "--id", id, "--rate", "5"); !strings.Contains(out, "events sent again: 1") {
		t.Errorf("walhook replay printed %s", out)
	}
	if again := next("/mine?a=b"); again.header.Get("webhook-id") != id {
		t.Errorf("replayed %s", again.header.Get("webhook-id"))
	}

	// Rotated: both secrets sign.
	rotated := data(t, mine.call(t, 200, "POST", path+"/secret/rotate", ""))["secret"].(string)
	mine.call(t, 200, "POST", path+"/test", "")
	both := next("/mine?a=b")
	verify(t, secret, both.header, both.body)
	verify(t, rotated, both.header, both.body)

	// 410 disables it; what comes meanwhile is held, and sent once it is enabled.
	db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (3, 7, 'refused')`)
	next("/mine?a=b")
	var disabled map[string]any
	eventually(t, 20*time.Second, func() bool {
		disabled = data(t, mine.call(t, 200, "GET", path, ""))
		return disabled["enabled"] == false && disabled["disable_reason"] != nil
	})
	mine.call(t, 200, "POST", path, `{"data":{"uri":"`+server.URL+`/other"}}`)
	db.Exec(t, `UPDATE dids SET number = '3' WHERE id = 3; DELETE FROM dids WHERE id = 3; INSERT INTO dids (id, user_id, number) VALUES (4, 7, 'held')`)
	eventually(t, 20*time.Second, func() bool {
		events, _ = mine.call(t, 200, "GET", path+"/events", "")["data"].([]any)
		return len(events) >= 5 && events[0].(map[string]any)["state"] == "held"
	})
	mine.call(t, 200, "POST", path, `{"data":{"enabled":true}}`)
	// The 410 may have come twice: it is about the settings before the rotation.
	timeout := time.After(patience)
	for held := false; !held; {
		select {
		case a := <-arrivals:
			held = a.path == "/other" && strings.Contains(string(a.body), "held")
		case <-timeout:
			t.Fatal("what was held did not arrive")
		}
	}
	if out := mustRun(t, "endpoints", "--outbox", db.URL); !strings.Contains(out, hook["id"].(string)+"  "+server.URL+"/other") {
		t.Errorf("walhook endpoints printed %s", out)
	}

	mine.call(t, 200, "DELETE", path, "")
	mine.call(t, 404, "GET", path, "")
	if out := mustRun(t, "endpoints", "--outbox", db.URL); strings.Contains(out, hook["id"].(string)) {
		t.Errorf("walhook endpoints printed %s", out)
	}
}
