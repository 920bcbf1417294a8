package endtoend

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
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

// TestCatalogDraft_OfFiveSchemasDelivers does that with databases after the structure of
// public schemas, most of which have no foreign key.
func TestCatalogDraft_OfFiveSchemasDelivers(t *testing.T) {
	t.Parallel()
	for _, world := range []struct {
		name, account  string
		before, change string // %s is the receiver's URL
		want           string
	}{
		{"kamailio", "domain",
			`INSERT INTO domain (domain, web_hook_url) VALUES ('sip.example.com', '%s')`,
			`INSERT INTO subscriber (username, domain, password, ha1) VALUES ('alice', 'sip.example.com', 'hunter2', 'c0ffee')`,
			`{"type":"insert","schema":"subscriber","data":"{\"id\":1,\"username\":\"alice\",\"domain\":\"sip.example.com\",\"email_address\":null,\"rpid\":null}"}`},
		{"fusionpbx", "v_domains",
			`INSERT INTO v_domains (domain_uuid, domain_name, web_hook_url) VALUES ('00000000-0000-0000-0000-000000000007', 'pbx.example.com', '%s')`,
			`INSERT INTO v_ring_groups VALUES ('00000000-0000-0000-0000-00000000000a', '00000000-0000-0000-0000-000000000007', 'sales', '600', 'simultaneous', 'true')`,
			`{"type":"insert","schema":"v_ring_groups","data":"{\"ring_group_uuid\":\"00000000-0000-0000-0000-00000000000a\",\"domain_uuid\":\"00000000-0000-0000-0000-000000000007\",` +
				`\"ring_group_name\":\"sales\",\"ring_group_extension\":\"600\",\"ring_group_strategy\":\"simultaneous\",\"ring_group_enabled\":\"true\"}"}`},
		{"asterisk", "tenants",
			`INSERT INTO tenants (accountcode, name, notify_url) VALUES ('ACME', 'Acme', '%s')`,
			`INSERT INTO sippeers (name, secret, accountcode) VALUES ('desk', 'hunter2', 'ACME')`,
			`{"type":"insert","schema":"sippeers","data":"{\"id\":1,\"name\":\"desk\",\"ipaddr\":null,\"host\":null,\"type\":null,\"context\":null,\"accountcode\":\"ACME\",\"mailbox\":null,\"callerid\":null}"}`},
		{"a2billing", "cc_card",
			`INSERT INTO cc_card (username, useralias, web_hook_url) VALUES ('1000', 'a', '%s'); INSERT INTO cc_invoice (reference, id_card) VALUES ('R1', 1)`,
			`INSERT INTO cc_invoice_item (id_invoice, date, price, vat, description) VALUES (1, '2026-01-02', 9.50, 20, 'calls')`,
			`{"type":"insert","schema":"cc_invoice_item","data":"{\"id\":1,\"id_invoice\":1,\"date\":\"2026-01-02T00:00:00\",\"price\":9.50000,\"vat\":20.00,\"description\":\"calls\"}"}`},
		{"webshop", "shop.customers",
			`INSERT INTO shop.customers (id, email, webhook_url) VALUES ('00000000-0000-0000-0000-000000000007', 'a@example.com', '%s'); INSERT INTO shop.orders (id, customer_id) VALUES (42, '00000000-0000-0000-0000-000000000007')`,
			`INSERT INTO shop.payments VALUES (1, '2026-05-06', 42, 'card', '4111111111111111', '1111', 12.30)`,
			`{"type":"insert","schema":"payments","data":"{\"id\":1,\"paid_on\":\"2026-05-06\",\"order_id\":42,\"method\":\"card\",\"card_last_digits\":\"1111\",\"amount\":12.30}"}`},
	} {
		t.Run(world.name, func(t *testing.T) {
			t.Parallel()
			tables, err := os.ReadFile(filepath.Join("..", "..", "cmd", "walhook", "testdata", "draft", world.name+".sql"))
			if err != nil {
				t.Fatal(err)
			}
			db := pgtest.Database(t)
			bodies := make(chan string, 10)
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				bodies <- string(body)
			}))
			t.Cleanup(server.Close)
			db.Exec(t, string(tables))
			if strings.Contains(world.before, "web_hook_url") { // as the draft asks
				db.Exec(t, "ALTER TABLE "+world.account+" ADD COLUMN web_hook_url text")
			}
			db.Exec(t, fmt.Sprintf(world.before, server.URL))

			file, slot := filepath.Join(t.TempDir(), "catalog.yaml"), "draft_"+db.Name
			mustRun(t, "catalog", "draft", "--source", db.URL, "--account", world.account, "--output", file)
			mustRun(t, "catalog", "check", file, "--source", db.URL)
			mustRun(t, "setup", "--source", db.URL, "--slot", slot, "--catalog", file)
			startChild(t, "run", "--source", db.URL, "--slot", slot, "--catalog", file, "--listen", "off", "--allow-cidr", "127.0.0.0/8")
			db.Exec(t, world.change)
			select {
			case body := <-bodies:
				if body != world.want {
					t.Errorf("got  %s\nwant %s", body, world.want)
				}
			case <-time.After(patience):
				t.Error("nothing arrives")
			}
		})
	}
}
