package endtoend

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walhook/internal/loopback"
	"walhook/internal/pgtest"
	"walhook/internal/receiver"
)

const heldCatalog = `
account: {table: public.users, id: id, url: web_hook_url, secret: web_hook_secret}
schemas:
  dids: {table: public.dids, owner: user_id, fields: [id, user_id, number]}
`

// heldWorld is a carrier whose accounts bring their own secrets.
type heldWorld struct {
	db       *pgtest.DB
	server   *receiver.Server
	settings []string // of every command
	address  string
}

func newHeldWorld(t *testing.T) *heldWorld {
	t.Helper()
	return newHeldWorldIn(t, pgtest.Database(t))
}

func newHeldWorldIn(t *testing.T, db *pgtest.DB) *heldWorld {
	t.Helper()
	w := &heldWorld{db: db, address: loopback.Address(t)}
	var err error
	if w.server, err = receiver.Start(receiver.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.server.Close() })
	catalog := filepath.Join(t.TempDir(), "catalog.yaml")
	if err := os.WriteFile(catalog, []byte(heldCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	w.db.Exec(t, `CREATE TABLE users (id bigint PRIMARY KEY, web_hook_url text, web_hook_secret text);
		CREATE TABLE dids (id bigint PRIMARY KEY, user_id bigint, number text)`)
	w.settings = []string{"--source", w.db.URL, "--slot", "held_" + w.db.Name, "--catalog", catalog}
	return w
}

func (w *heldWorld) run(t *testing.T, more ...string) *childProcess {
	t.Helper()
	p := startChild(t, append(append([]string{"run", "--listen", w.address, "--allow-cidr", "127.0.0.0/8", "--admin-token", "operator-token"}, w.settings...), more...)...)
	awaitReady(t, w.address)
	return p
}

// endpointReport is what these tests read of endpoints --json.
type endpointReport struct {
	Account, State, Reason string
	Retries                int
	HeldSince              time.Time `json:"held_since"`
	HeldReason             string    `json:"held_reason"`
}

// endpoints are those of 'walhook endpoints', by account.
func (w *heldWorld) endpoints(t *testing.T) map[string]endpointReport {
	t.Helper()
	var list []endpointReport
	if err := json.Unmarshal([]byte(mustRun(t, "endpoints", "--json", "--outbox", w.db.URL)), &list); err != nil {
		t.Fatal(err)
	}
	byAccount := map[string]endpointReport{}
	for _, e := range list {
		byAccount[e.Account] = e
	}
	return byAccount
}

// webhook is the account's own webhook, as the API shows it.
func (w *heldWorld) webhook(t *testing.T, account string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.address+"/v2/accounts/"+account+"/webhooks/account", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", "operator-token")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body) // what came of it, the test compares
	return string(text)
}

func wantText(t *testing.T, where, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s lacks %q:\n%s", where, w, text)
		}
	}
}

// doctorSays is what 'walhook doctor' prints; it may find something.
func doctorSays(t *testing.T, args ...string) string {
	t.Helper()
	out, _ := childCommand(t, append([]string{"doctor"}, args...)...).CombinedOutput()
	return string(out)
}

// TestHeld_ASecretThatCannotSignIsShownAndHoldsItsAccountAlone gives accounts
// secrets that no receiver could have been given.
func TestHeld_ASecretThatCannotSignIsShownAndHoldsItsAccountAlone(t *testing.T) {
	t.Parallel()
	w := newHeldWorld(t)
	bad := map[string]string{
		"2": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0",      // no whsec_
		"3": "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV", // no padding
		"4": "whsec_not base64!",
		"5": "whsec_",
		"6": "hunter2",
	}
	w.db.Exec(t, fmt.Sprintf(`INSERT INTO users SELECT n, '%s' || n, NULL FROM generate_series(1, 7) n`, strings.TrimSuffix(w.server.URL("1"), "1")))
	w.db.Exec(t, `UPDATE users SET web_hook_secret = 'whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0' WHERE id = 1`)
	for account, secret := range bad {
		w.db.Exec(t, fmt.Sprintf(`UPDATE users SET web_hook_secret = '%s' WHERE id = %s`, secret, account))
	}
	mustRun(t, append([]string{"setup"}, w.settings...)...)
	w.run(t)
	w.db.Exec(t, `INSERT INTO dids SELECT n, n, n FROM generate_series(1, 7) n`)
	var list map[string]endpointReport
	eventually(t, 20*time.Second, func() bool {
		list = w.endpoints(t)
		held := 0
		for account := range bad {
			if list[account].State == "unusable" {
				held++
			}
		}
		return held == len(bad)
	})
	eventually(t, 20*time.Second, func() bool {
		return scrape(t, w.address).sum("walhook_attempts_total", "outcome", "delivered") == 2 &&
			scrape(t, w.address).sum("walhook_lanes_held", "reason", "unusable_endpoint") == float64(len(bad))
	})
	for account, secret := range bad {
		e := list[account]
		if e.HeldSince.IsZero() || time.Since(e.HeldSince) > time.Minute || !strings.Contains(e.Reason, "whsec_") {
			t.Errorf("secret %q: held since %v: %s", secret, e.HeldSince, e.Reason)
		}
		wantText(t, "the API", w.webhook(t, account), `"state":"unusable"`, "whsec_", `"held_since"`)
		if text := w.webhook(t, account); len(secret) > 8 && strings.Contains(text, secret) {
			t.Errorf("the API shows a secret: %s", text)
		}
	}
	status := mustRun(t, append([]string{"status"}, w.settings[:4]...)...)
	wantText(t, "status", status, "HELD", "whsec_", "5 unusable, 2 active")
	wantText(t, "doctor", doctorSays(t, w.settings...), "FAILED   outbox.set_aside", "secret_form")

	// The column is corrected, or emptied: all goes out by itself.
	w.db.Exec(t, `UPDATE users SET web_hook_secret = 'whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0' WHERE id IN (2, 3, 4)`)
	w.db.Exec(t, `UPDATE users SET web_hook_secret = NULL WHERE id IN (5, 6)`)
	eventually(t, 30*time.Second, func() bool { return scrape(t, w.address).sum("walhook_lanes_held") == 0 })
	eventually(t, 30*time.Second, func() bool { return scrape(t, w.address).sum("walhook_outbox_backlog") == 0 })
	for account := range bad {
		if e := w.endpoints(t)[account]; e.State != "active" || !e.HeldSince.IsZero() {
			t.Errorf("account %s is %s since %v: %s", account, e.State, e.HeldSince, e.Reason)
		}
	}
	if n := scrape(t, w.address).sum("walhook_attempts_total", "outcome", "delivered"); n != 7 {
		t.Errorf("%g delivered, want 7", n)
	}
}

// TestHeld_AnErrorOfTheSendingSideIsShownAndCostsTheEndpointNothing gives the sender a local
// address that is not this machine's.
func TestHeld_AnErrorOfTheSendingSideIsShownAndCostsTheEndpointNothing(t *testing.T) {
	t.Parallel()
	w := newHeldWorld(t)
	w.db.Exec(t, fmt.Sprintf(`INSERT INTO users VALUES (7, '%s')`, w.server.URL("7")))
	mustRun(t, append([]string{"setup"}, w.settings...)...)
	process := w.run(t, "--egress-address", "198.51.100.9")
	w.db.Exec(t, `INSERT INTO dids VALUES (1, 7, 'x')`)
	var e endpointReport
	eventually(t, 20*time.Second, func() bool {
		e = w.endpoints(t)["7"]
		return !e.HeldSince.IsZero()
	})
	if e.State != "active" || e.HeldReason != "no_resources" || time.Since(e.HeldSince) > time.Minute || e.Retries != 0 {
		t.Errorf("%+v", e)
	}
	wantText(t, "endpoints", mustRun(t, "endpoints", "--outbox", w.db.URL), "held since", "no_resources")
	wantText(t, "the API", w.webhook(t, "7"), `"held_since"`, "sending side", "nothing is lost")
	if strings.Contains(w.webhook(t, "7"), "no_resources") {
		t.Error("the API shows the account what is wrong with this machine")
	}
	wantText(t, "status", mustRun(t, append([]string{"status"}, w.settings[:4]...)...), "HELD", "no_resources")
	wantText(t, "doctor", doctorSays(t, w.settings...), "FAILED   outbox.held", "no_resources", "account 7")
	eventually(t, 10*time.Second, func() bool { return scrape(t, w.address).sum("walhook_lanes_held", "reason", "no_resources") == 1 })
	eventually(t, 30*time.Second, func() bool { return scrape(t, w.address).sum("walhook_outbox_backlog") > 0 })
	wantFiring(t, w.address, 30, 300*time.Millisecond, "WalhookAttemptsHeld", "WalhookNothingDelivered")
	since := e.HeldSince
	process.stop(t)

	restarted := time.Now()
	process = w.run(t, "--egress-address", "198.51.100.9") // the next one remembers since when
	eventually(t, 20*time.Second, func() bool { return scrape(t, w.address).sum("walhook_lanes_held", "reason", "no_resources") == 1 })
	if e := w.endpoints(t)["7"]; e.HeldSince.Sub(since).Abs() > restarted.Sub(since)/2 {
		t.Errorf("held since %v, and before the restart since %v", e.HeldSince, since)
	}
	process.stop(t)
	w.run(t)
	eventually(t, 30*time.Second, func() bool {
		return scrape(t, w.address).sum("walhook_attempts_total", "outcome", "delivered") == 1 && scrape(t, w.address).sum("walhook_lanes_held") == 0
	})
	eventually(t, 10*time.Second, func() bool { return w.endpoints(t)["7"].HeldSince.IsZero() })
	wantText(t, "doctor", doctorSays(t, w.settings...), "ok       outbox.held")
}
