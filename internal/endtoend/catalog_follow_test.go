package endtoend

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"walhook/internal/loopback"
)

// followedCatalog adds to changedShopCatalog a hook, and leaves out those that are built in.
const followedCatalog = changedShopCatalog + `
hooks:
  part_counted: {description: A part was counted., fields: {id: {from: payload, about: The part.}}}
`

// A process that serves the API alone, and was started with the former file, goes by the
// catalog in force from the moment on that 'walhook setup' says so.
func TestCatalogChange_TheAPIOfAnotherProcessFollowsIt(t *testing.T) {
	t.Parallel()
	s := newShop(t, 3, func(string) string { return "http://127.0.0.1:9/hook" })
	s.db.Exec(t, partTable)
	changed := filepath.Join(t.TempDir(), "changed.yaml")
	if err := os.WriteFile(changed, []byte(followedCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	startAll(t, s.publisher(t))
	address := loopback.Address(t)
	process := startChild(t, "run", "--role", "api", "--outbox", s.outbox.URL, "--catalog", s.catalog, "--listen", address, "--admin-token", "the operator of the test")
	defer process.stop(t)
	awaitReady(t, address)
	operator := apiClient{"http://" + address + "/v2/accounts/", "the operator of the test"}

	const records, counted = `{"data":{"name":"n","uri":"https://example.com/","schemas":["parts"]}}`, `{"data":{"name":"n","uri":"https://example.com/","hook":"part_counted"}}`
	const call = `{"data":{"name":"n","uri":"https://example.com/","hook":"channel_create"}}`
	warnings := func(answer map[string]any) string { return fmt.Sprint(answer["warnings"]) }
	if answer := operator.call(t, 201, "PUT", "1/webhooks", records); !strings.Contains(warnings(answer), `unknown record schema "parts"`) {
		t.Errorf("before: %v", answer)
	}
	operator.call(t, 400, "PUT", "1/webhooks", counted)
	operator.call(t, 201, "PUT", "1/webhooks", call)
	if hooks := documentedHooks(t, address); slices.Contains(hooks, "part_counted") || !slices.Contains(hooks, "channel_create") {
		t.Errorf("the document before: %s", hooks)
	}

	for range 2 { // and back again
		mustRun(t, "setup", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", changed)
		if answer := operator.call(t, 201, "PUT", "1/webhooks", records); strings.Contains(warnings(answer), "parts") {
			t.Errorf("after: %v", answer)
		}
		operator.call(t, 201, "PUT", "1/webhooks", counted)
		operator.call(t, 400, "PUT", "1/webhooks", call)
		eventually(t, patience, func() bool {
			hooks := documentedHooks(t, address)
			return slices.Contains(hooks, "part_counted") && !slices.Contains(hooks, "channel_create")
		})
		if page, origin := runWalhook(t, "schemas", "--outbox", s.outbox.URL); !strings.Contains(page, "part_counted") || !strings.Contains(origin, "in force, from the outbox") {
			t.Errorf("schemas from %q: %s", origin, page)
		}
		page, origin := runWalhook(t, "schemas", "--outbox", s.outbox.URL, "--catalog", s.catalog)
		if strings.Contains(page, "part_counted") || !strings.Contains(origin, s.catalog) {
			t.Errorf("schemas of a file from %q: %s", origin, page)
		}
		mustRun(t, s.setup()...)
		operator.call(t, 400, "PUT", "1/webhooks", counted)
	}
}

// documentedHooks are the values of a webhook's hook in the OpenAPI document.
func documentedHooks(t *testing.T, address string) (hooks []string) {
	t.Helper()
	var document struct {
		Paths map[string]map[string]struct {
			RequestBody struct {
				Content map[string]struct {
					Schema struct {
						Properties struct {
							Data struct {
								Properties struct {
									Hook struct{ Enum []string }
								}
							}
						}
					}
				}
			}
		}
	}
	response, err := http.Get("http://" + address + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&document); err != nil {
		t.Fatal(err)
	}
	return document.Paths["/v2/accounts/{account_id}/webhooks"]["put"].RequestBody.Content["application/json"].Schema.Properties.Data.Properties.Hook.Enum
}

// A catalog that waits is told everywhere, with the reason.
func TestCatalogChange_OneThatWaitsIsVisible(t *testing.T) {
	t.Parallel()
	s := newShop(t, 3, func(string) string { return "http://127.0.0.1:9/hook" })
	s.db.Exec(t, partTable)
	changed := filepath.Join(t.TempDir(), "changed.yaml")
	if err := os.WriteFile(changed, []byte(changedShopCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	publisher := s.publisher(t)
	publisher.args = append(publisher.args, "--listen", loopback.Address(t))
	metrics := publisher.args[len(publisher.args)-1]
	startAll(t, publisher)
	connections := []string{"--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot}
	pending := func() (reason string, there bool) {
		var status struct {
			Catalog struct{ Pending *struct{ Reason string } }
		}
		if err := json.Unmarshal([]byte(mustRun(t, append([]string{"status", "--json"}, connections...)...)), &status); err != nil {
			t.Fatal(err)
		}
		if status.Catalog.Pending == nil {
			return "", false
		}
		return status.Catalog.Pending.Reason, true
	}
	finding := func(id string, args ...string) (status, evidence string) {
		var report struct {
			Checks []struct{ ID, Status, Evidence string }
		}
		out, _ := runWalhook(t, append(append([]string{"doctor", "--json"}, connections...), args...)...)
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, check := range report.Checks {
			if check.ID == id {
				return check.Status, check.Evidence
			}
		}
		t.Fatalf("no check %s: %s", id, out)
		return "", ""
	}

	if status, evidence := finding("source.catalog", "--catalog", changed); status != "warning" || !strings.Contains(evidence, "schema parts begins") || !strings.Contains(evidence, "gains field note") {
		t.Errorf("before, the file: %s %s", status, evidence)
	}
	if status, evidence := finding("source.published", "--catalog", changed); status != "ok" {
		t.Errorf("a table that only the file names: %s %s", status, evidence)
	}
	open := s.db.Connect(t)
	if _, err := open.Exec(t.Context(), "BEGIN; INSERT INTO item (id, account, n) VALUES (7, 1, 0)"); err != nil {
		t.Fatal(err)
	}
	setup := startChild(t, append([]string{"setup", "--catalog", changed}, connections...)...)
	const why = "waits for transactions that run on the source: pid "
	eventually(t, patience, func() bool { reason, _ := pending(); return strings.Contains(reason, why) })
	if text := mustRun(t, append([]string{"status"}, connections...)...); !strings.Contains(text, "A CHANGED ONE WAITS since") || !strings.Contains(text, why) {
		t.Errorf("status:\n%s", text)
	}
	if status, evidence := finding("outbox.catalog", "--catalog", changed); status != "warning" || !strings.Contains(evidence, why) || !strings.Contains(evidence, "schema parts begins") {
		t.Errorf("while it waits: %s %s", status, evidence)
	}
	if status, evidence := finding("source.catalog", "--catalog", changed); status != "ok" {
		t.Errorf("the file that waits: %s %s", status, evidence)
	}
	waited := func() float64 { return scrape(t, metrics).sum("walhook_catalog_pending_seconds") }
	eventually(t, patience, func() bool { return waited() > 0 })
	if _, err := open.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := setup.cmd.Wait(); err != nil {
		t.Errorf("setup: %v", err)
	}
	if _, there := pending(); there {
		t.Error("still pending")
	}
	if status, evidence := finding("outbox.catalog", "--catalog", changed); status != "ok" {
		t.Errorf("after: %s %s", status, evidence)
	}
	if status, evidence := finding("source.catalog", "--catalog", changed); status != "ok" {
		t.Errorf("after, the file: %s %s", status, evidence)
	}
	eventually(t, patience, func() bool { return waited() == 0 })
}
