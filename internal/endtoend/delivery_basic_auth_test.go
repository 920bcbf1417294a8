package endtoend

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"walhook/internal/carrier"
	"walhook/internal/pgtest"
)

// Deliveries carry the user name and password of their URL however it is stored:
// in clear, encrypted by reseal beside a running service, and another key encrypted.
func TestRun_SendsBasicAuthenticationHoweverTheURLIsStored(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	const user, password = "ann", "hun:ter/2@ é"
	var mu sync.Mutex
	var got []string // whoever came, since it was last asked
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		u, p, ok := r.BasicAuth()
		got = append(got, fmt.Sprint(r.URL.Path, " ", u == user && p == password, " ", ok))
	}))
	t.Cleanup(server.Close)
	db.Exec(t, carrier.Tables)
	db.Exec(t, fmt.Sprintf(`INSERT INTO users (id, username, web_hook_url) VALUES (7, 'seven', '%s/hook')`,
		strings.Replace(server.URL, "http://", "http://ann:hun%3Ater%2F2%40%20%C3%A9@", 1)))
	key := func(digit string) string { return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(digit, 32))) }
	first, second := key("1"), key("2")
	slot := "basic_" + db.Name
	mustRun(t, "setup", "--source", db.URL, "--slot", slot)
	run := func(flags ...string) *childProcess {
		return startChild(t, append([]string{"run", "--source", db.URL, "--slot", slot, "--listen", "off", "--allow-cidr", "127.0.0.0/8"}, flags...)...)
	}
	n := 0
	arrives := func(when string) {
		t.Helper()
		n++
		db.Exec(t, fmt.Sprintf("INSERT INTO dids (id, user_id, number) VALUES (%d, 7, 'x')", n))
		eventually(t, 30*time.Second, func() bool { mu.Lock(); defer mu.Unlock(); return len(got) >= 1 })
		mu.Lock()
		defer mu.Unlock()
		for _, one := range got {
			if one != "/hook true true" {
				t.Errorf("%s: %s", when, one)
			}
		}
		got = nil
	}
	stored := func(when string, sealed bool) {
		t.Helper()
		var url string
		if err := db.Connect(t).QueryRow(t.Context(), "SELECT url FROM walhook.endpoint").Scan(&url); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(url, "sealed.v2.") != sealed || strings.Contains(url, "hun%3A") == sealed {
			t.Errorf("%s the URL is stored as %s", when, url)
		}
	}

	process := run()
	arrives("without a key")
	stored("without a key", false)
	process.stop(t)
	process = run("--secret-key", first)
	arrives("in clear, under a key")
	mustRun(t, "endpoints", "reseal", "--outbox", db.URL, "--secret-key", first)
	stored("after reseal", true)
	arrives("beside reseal")
	process.stop(t)
	process = run("--secret-key", first)
	arrives("encrypted, after a restart")
	mustRun(t, "endpoints", "reseal", "--outbox", db.URL, "--secret-key", second, "--old-secret-key", first)
	stored("another key encrypted", true)
	arrives("under the key before, beside reseal")
	process.stop(t)
	process = run("--secret-key", second)
	arrives("another key encrypted")
	process.stop(t)
	mustRun(t, "teardown", "--source", db.URL, "--slot", slot, "--outbox")
}
