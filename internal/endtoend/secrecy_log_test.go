package endtoend

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// TestRun_SecretsAreInNoLogAttemptOrMetric has a receiver refuse an event and
// say, in each answer, all that it knows: its secret, the URL with its
// credentials, the request. Whatever a process writes down of that is looked
// through, at the most talkative log level.
func TestRun_SecretsAreInNoLogAttemptOrMetric(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	const payload = "3125559999"
	var said atomic.Pointer[string]
	said.Store(new(""))
	var refused, taken atomic.Int32
	var takes atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if takes.Load() {
			taken.Add(1)
			return
		}
		refused.Add(1)
		w.Header().Set("Location", "http://ann:hunter2@elsewhere.example/?token=t0ken")
		w.WriteHeader([]int{500, 302, 400}[refused.Load()%3])
		fmt.Fprintf(w, "%s %s %s %s", *said.Load(), r.RequestURI, r.Header.Get("Authorization"), body)
	}))
	t.Cleanup(server.Close)
	db.Exec(t, carrier.Tables)
	url := strings.Replace(server.URL, "http://", "http://ann:hunter2@", 1) + "/hook?token=t0ken"
	db.Exec(t, fmt.Sprintf(`INSERT INTO users (id, username, web_hook_url) VALUES (7, 'seven', '%s')`, url))

	slot, listen := "confidential_"+db.Name, loopback.Address(t)
	key := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	mustRun(t, "setup", "--source", db.URL, "--slot", slot, "--secret-key", key)
	process := startChild(t, "run", "--source", db.URL, "--slot", slot, "--listen", listen, "--allow-cidr", "127.0.0.0/8",
		"--secret-key", key, "--log-level", "debug", "--retry-schedule", "100ms"+strings.Repeat(",200ms", 1000))
	first := mustRun(t, "endpoints", "secret", "7", "--outbox", db.URL, "--secret-key", key)
	rotated := mustRun(t, "endpoints", "rotate", "7", "--outbox", db.URL, "--secret-key", key)
	said.Store(new(fmt.Sprintf("%s %s %s ann:hunter2@", first, rotated, url)))
	db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) VALUES (42, 7, '%s')`, payload))
	eventually(t, 30*time.Second, func() bool { return refused.Load() >= 6 })
	takes.Store(true)
	eventually(t, 60*time.Second, func() bool { return taken.Load() > 0 })

	written := map[string]string{
		"metrics":   get(t, "http://"+listen+"/metrics"),
		"endpoints": mustRun(t, "endpoints", "--outbox", db.URL) + mustRun(t, "endpoints", "--json", "--outbox", db.URL),
	}
	process.stop(t)
	log, err := os.ReadFile(process.logs)
	if err != nil {
		t.Fatal(err)
	}
	written["log"] = string(log)
	for _, table := range []string{"attempt", "retry", "lane", "unrouted"} {
		var rows string
		sql := fmt.Sprintf("SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM walhook.%s t", table)
		if err := db.Connect(t).QueryRow(t.Context(), sql).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		written["table "+table] = rows
	}
	if strings.Count(written["table attempt"], "HTTP 500") == 0 || !strings.Contains(written["log"], `"level":"debug"`) {
		t.Errorf("nothing was written down: the test proves nothing\n%s", written["table attempt"])
	}
	confidential := []string{"hunter2", "t0ken", base64.StdEncoding.EncodeToString([]byte("ann:hunter2")), key}
	for _, secret := range []string{first, rotated} {
		confidential = append(confidential, secret, strings.TrimPrefix(secret, "whsec_"))
	}
	for where, text := range written {
		for _, secret := range confidential {
			if at := strings.Index(text, secret); at >= 0 {
				t.Errorf("%s shows %q: …%s…", where, secret, text[max(at-100, 0):min(at+100, len(text))])
			}
		}
	}
	for _, where := range []string{"log", "metrics"} { // a receiver's answer is the account's own to read
		if strings.Contains(written[where], payload) {
			t.Errorf("%s shows a payload", where)
		}
	}
	for _, label := range []string{"/hook", strings.TrimPrefix(server.URL, "http://"), `"7"`} {
		if strings.Contains(written["metrics"], label) {
			t.Errorf("a metric names %s", label)
		}
	}
	var plain int
	if err := db.Connect(t).QueryRow(t.Context(), "SELECT count(*) FROM walhook.endpoint WHERE secret || coalesce(previous_secret, '') LIKE '%whsec%'").Scan(&plain); err != nil || plain > 0 {
		t.Errorf("%d secrets are stored as they are, %v", plain, err)
	}
	mustRun(t, "teardown", "--source", db.URL, "--slot", slot, "--outbox")
}

func get(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, answer.Status, err)
	}
	return string(body)
}
