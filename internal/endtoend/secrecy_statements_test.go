package endtoend

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// TestSecrecy_NoStatementHoldsASecret has the outbox's server log every statement
// (log_statement), as many do: secrets and what they protect go by parameters
// alone, which log_parameter_max_length keeps out of a log.
func TestSecrecy_NoStatementHoldsASecret(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: map[string]string{
		"log_statement": "all", "log_min_error_statement": "error", "log_parameter_max_length": "0", "log_parameter_max_length_on_error": "0",
		"logging_collector": "on", "log_directory": "statements", "log_filename": "all.log"}})
	outbox := pgtest.NewDatabase(t, cluster)
	w := newHeldWorld(t)
	host := strings.TrimPrefix(strings.TrimSuffix(w.server.URL("7"), "/7"), "http://")
	w.db.Exec(t, `INSERT INTO users VALUES (7, 'http://user-hunter2:pass-hunter2@`+host+`/7?token=hunter2', 'whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==')`)
	w.settings = append(w.settings, "--outbox", outbox.URL)
	mustRun(t, append([]string{"setup"}, w.settings...)...)
	process := w.run(t)
	w.db.Exec(t, `INSERT INTO dids SELECT n, 7, 'hunter2' FROM generate_series(1, 5) n`)
	awaitMetrics(t, w.address, "the events arrive", func(m exposition) bool { return m.sum("walhook_attempts_total", "outcome", "delivered") == 5 })
	call := func(method, path, body string) (answer struct{ Data struct{ ID string } }) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+w.address+"/v2/accounts/7"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Auth-Token", "operator-token")
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Idempotency-Key", "key-hunter2"+path)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || response.StatusCode >= 300 {
			t.Errorf("%s %s: %s, %v", method, path, response.Status, err)
		}
		return answer
	}
	made := call("PUT", "/webhooks", fmt.Sprintf(`{"data":{"name":"hunter2","uri":"http://u:hunter2@%s/8?hunter2","custom_data":{"a":"hunter2"},"headers":{"X-Key":"hunter2"}}}`, host))
	call("PUT", "/tokens", `{"data":{"name":"hunter2"}}`)
	call("POST", "/webhooks/"+made.Data.ID+"/secret/rotate", `{"data":{}}`)
	w.db.Exec(t, `UPDATE dids SET number = 'hunter2 again'`)
	awaitMetrics(t, w.address, "more arrive", func(m exposition) bool { return m.sum("walhook_attempts_total", "outcome", "delivered") >= 10 })
	process.stop(t)
	key := "WALHOOK_SECRET_KEY=" + "aHVudGVyMi5odW50ZXIyLmh1bnRlcjIuaHVudGVyMi4="
	for _, args := range [][]string{{"endpoints", "reseal"}, {"endpoints", "secret", "7"}, {"endpoints", "disable", "7", "--reason", "hunter2"}} {
		command := childCommand(t, append(args, "--outbox", outbox.URL)...)
		command.Env = append(command.Env, key)
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("walhook %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	var directory string
	if err := outbox.Connect(t).QueryRow(t.Context(), "SHOW data_directory").Scan(&directory); err != nil {
		t.Fatal(err)
	}
	var log []byte
	eventually(t, 10*time.Second, func() bool {
		log, _ = os.ReadFile(filepath.Join(directory, "statements", "all.log"))
		return strings.Contains(string(log), "UPDATE walhook.endpoint")
	})
	for line := range strings.SplitSeq(string(log), "\n") {
		for _, secret := range []string{"hunter2", "whsec_aHVu", "aHVudGVyMi"} {
			if strings.Contains(line, secret) {
				t.Errorf("the server's log shows %q: %s", secret, line[:min(len(line), 300)])
			}
		}
	}
}
