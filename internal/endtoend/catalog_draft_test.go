package endtoend

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"walhook/internal/pgtest"
)

// TestCatalogDraft_DeliversARow goes from a database that walhook never saw to a
// delivered event, and nothing is typed but commands.
func TestCatalogDraft_DeliversARow(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	bodies := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- string(body)
	}))
	t.Cleanup(server.Close)
	db.Exec(t, fmt.Sprintf(`
CREATE SCHEMA shop;
CREATE TABLE shop.customers (id uuid PRIMARY KEY, password_hash text, webhook_url text);
CREATE TABLE shop.orders (id bigint PRIMARY KEY, customer_id uuid NOT NULL REFERENCES shop.customers, card_number text);
CREATE TABLE shop."Order Notes" (id bigint PRIMARY KEY, order_id bigint REFERENCES shop.orders, note text, "on" boolean);
INSERT INTO shop.customers VALUES ('00000000-0000-0000-0000-000000000007', 'hunter2', '%s');
INSERT INTO shop.orders VALUES (42, '00000000-0000-0000-0000-000000000007', '4111')`, server.URL))

	file, slot := filepath.Join(t.TempDir(), "catalog.yaml"), "draft_"+db.Name
	mustRun(t, "catalog", "draft", "--source", db.URL, "--output", file)
	mustRun(t, "catalog", "check", file, "--source", db.URL)
	mustRun(t, "setup", "--source", db.URL, "--slot", slot, "--catalog", file)
	startChild(t, "run", "--source", db.URL, "--slot", slot, "--catalog", file, "--listen", "off", "--allow-cidr", "127.0.0.0/8")
	db.Exec(t, `INSERT INTO shop."Order Notes" VALUES (1, 42, 'by hand', true)`)
	db.Exec(t, `UPDATE shop.orders SET card_number = '4222' WHERE id = 42`)
	want := map[string]bool{ // of different records, which may overtake each other
		`{"type":"insert","schema":"Order_Notes","data":"{\"id\":1,\"order_id\":42,\"note\":\"by hand\",\"on\":true}"}`:     true,
		`{"type":"update","schema":"orders","data":"{\"id\":42,\"customer_id\":\"00000000-0000-0000-0000-000000000007\"}"}`: true,
	}
	for deadline := time.After(patience); len(want) > 0; {
		select {
		case body := <-bodies:
			if !want[body] {
				t.Errorf("got %s", body)
			}
			delete(want, body)
		case <-deadline:
			t.Fatalf("what did not arrive: %v", want)
		}
	}
}
