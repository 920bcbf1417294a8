package endtoend

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"walhook/internal/loopback"
	"walhook/internal/pgtest"
	"walhook/internal/platform"
)

// platformAccounts are the customers of the provider's document, with the ids
// and names that its bodies show.
const platformAccounts = `
	INSERT INTO accounts (id, parent_id, account_type, name) VALUES (1, NULL, 'platform_provider', 'P'), (2, 1, 'reseller', 'R');
	INSERT INTO accounts (id, parent_id, account_type, name, external_customer_account_id, reseller_own_sku, platform_own_sku, system_sku)
	SELECT id, 2, 'customer', 'C', external, '4353', '3333', '1234' FROM (VALUES (2779, '1565'), (1615, '7246'), (196, '6527'), (261, ''),
		(2198, '7938'), (2229, ''), (341, '6709'), (2354, '8144'), (1619, '7248'), (3238, '')) AS c (id, external);
	INSERT INTO numbers (id, account_id, number, call_forward_to) VALUES (1, 261, '1', '312'), (2, 2198, '2', NULL), (3, 2229, '3', NULL),
		(4, 341, '4', NULL), (5, 2354, '5', NULL);
	INSERT INTO numbers (id, account_id, number) SELECT id, 1619, id::text FROM generate_series(11, 15) id`

// What is told at once, by what happens in the provider's database. The words
// "updated | new | deleted" of the document stand for one of them each.
var platformRealtime = []struct{ sql, body string }{
	{"INSERT INTO orders (account_id, order_type, event_type, pon_number, call_path_count) VALUES (2779, 'MSTEAMS DID NEW', 'increase', 'NUW2024070145', 10)",
		`{"Account_id":2779,"event_object":"customer","event_action":"Placed new order","order_type":"MSTEAMS DID NEW","event_type":"increase","pon_number":"NUW2024070145","call_path_count":10,"external_customer_account_id":"1565","reseller_own_sku":"4353","platform_own_sku":"3333","system_sku":"1234"}`},
	{"INSERT INTO orders (account_id, order_type, event_type, pon_number, complete_number_count) VALUES (2779, 'MSTEAMS DID NEW', 'add', 'NUW2024070145', 10)",
		`{"Account_id":2779,"event_object":"customer","event_action":"Placed new order","order_type":"MSTEAMS DID NEW","event_type":"add","pon_number":"NUW2024070145","complete_number_count":10,"external_customer_account_id":"1565","reseller_own_sku":"4353","platform_own_sku":"3333","system_sku":"1234"}`},
	{"INSERT INTO port_orders (account_id, event_type, complete_number_count) VALUES (1615, 'add', 2)",
		`{"Account_id":1615,"event_object":"customer","event_action":"assign","event_type":"add","complete_number_count":2,"external_customer_account_id":"7246","reseller_own_sku":"4353","platform_own_sku":"3333","system_sku":"1234"}`},
	{"INSERT INTO route_assignments (account_id, route_group, number_assigned) VALUES (196, 'G', 13)",
		`{"Account_id":196,"event_object":"customer","event_action":"ASSIGNED DEFAULT OUTBOUND ROUTE","number_assigned":13,"external_customer_account_id":"6527","reseller_own_sku":"4353","platform_own_sku":"3333","system_sku":"1234"}`},
	{"INSERT INTO accounts (id, parent_id, account_type, name) VALUES (1111, 2, 'customer', 'New')",
		`{"account_id":1111,"event_action":"new","event_object":"customer","updated_fields":[]}`},
	{"UPDATE accounts SET email = 'a@example.com', city = 'Chicago', system_sku = '9' WHERE id = 1111",
		`{"account_id":1111,"event_action":"updated","event_object":"customer","updated_fields":["email","city"]}`},
	{"DELETE FROM accounts WHERE id = 1111",
		`{"account_id":1111,"event_action":"deleted","event_object":"customer","updated_fields":[]}`},
	{"INSERT INTO sites (id, account_id, site_name) VALUES (4230, 3238, 'Site ABC')",
		`{"Account_id":3238,"site_id":4230,"site_name":"Site ABC","event_action":"Add","event_object":"Site","updated_fields":[]}`},
	{"UPDATE sites SET address = '1 Main St' WHERE id = 4230",
		`{"Account_id":3238,"site_id":4230,"site_name":"Site ABC","event_action":"Update","event_object":"Site","updated_fields":["Address"]}`},
	{"DELETE FROM sites WHERE id = 4230",
		`{"Account_id":3238,"site_id":4230,"site_name":"Site ABC","event_action":"Delete","event_object":"Site","updated_fields":[]}`},
}

// What is told once a day.
var platformDaily = []struct{ sql, body string }{
	{"UPDATE numbers SET call_forward_to = NULL WHERE id = 1",
		`{"Account_id":261,"event_object":"customer","event_action":"callforward","event_type":"remove","number_count":1,"external_customer_account_id":"","reseller_own_sku":"4353","platform_own_sku":"3333","system_sku":"1234"}`},
	{"INSERT INTO emergency_locations (number_id, module, dynamic, address) VALUES (2, 'msteam', true, 'A')",
		`{"Account_id":2198,"event_object":"customer","event_action":"dynamicemergencyservices","event_type":"add","module":"msteam","number_count":1,"external_customer_account_id":"7938","reseller_own_sku":"4353","platform_own_sku":"3333","system_sku":"1234"}`},
	{"INSERT INTO emergency_locations (number_id, module, dynamic, address) VALUES (3, 'webex', false, 'A')",
		`{"Account_id":2229,"event_object":"customer","event_action":"emergencyservices","event_type":"add","module":"webex","number_count":1,"external_customer_account_id":"","reseller_own_sku":"4353","platform_own_sku":"3333","system_sku":"1234"}`},
	{"UPDATE numbers SET international_calling = true WHERE id = 4",
		`{"Account_id":341,"event_object":"customer","event_action":"internationalcalling","event_type":"add","number_count":1,"external_customer_account_id":"6709","reseller_own_sku":"4353","platform_own_sku":"3333","system_sku":"1234"}`},
	{"UPDATE numbers SET inbound_cnam = true WHERE id = 5",
		`{"Account_id":2354,"event_object":"customer","event_action":"inboundcnam","event_type":"enable","number_count":1,"external_customer_account_id":"8144","reseller_own_sku":"4353","platform_own_sku":"3333","system_sku":"1234"}`},
	{"UPDATE numbers SET outbound_cnam = true WHERE account_id = 1619",
		`{"Account_id":1619,"event_object":"customer","event_action":"outboundcnam","event_type":"enable","number_count":5,"external_customer_account_id":"7248","reseller_own_sku":"4353","platform_own_sku":"3333","system_sku":"1234"}`},
	{"UPDATE numbers SET sms = true WHERE id = 1",
		`{"Account_id":261,"event_object":"customer","event_action":"sms","event_type":"enable","number_count":1,"external_customer_account_id":"","reseller_own_sku":"4353","platform_own_sku":"3333","system_sku":"1234"}`},
}

// TestPlatform_SendsEveryBodyOfTheProvidersDocument goes the whole way: changes
// in a provider's database, walhook as processes of its own, a receiver.
func TestPlatform_SendsEveryBodyOfTheProvidersDocument(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	arrived := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		id, _, _ := strings.Cut(r.Header.Get("webhook-id"), "_")
		arrived <- r.URL.Path + " " + id + " " + string(body)
	}))
	t.Cleanup(server.Close)
	db.Exec(t, platform.Tables+platformAccounts)
	slot := "platform_" + db.Name
	mustRun(t, "setup", "--source", db.URL, "--slot", slot, "--catalog", "platform")
	address := loopback.Address(t)
	process := startChild(t, "run", "--source", db.URL, "--slot", slot, "--catalog", "platform", "--listen", address, "--allow-cidr", "127.0.0.0/8",
		"--admin-token", "the operator of the test")
	awaitReady(t, address)
	operator := apiClient{"http://" + address + "/v2/accounts/", "the operator of the test"}
	// The provider's day ended a minute ago.
	dailyAt := time.Now().UTC().Add(-time.Minute).Format("15:04")
	for path, fields := range map[string]string{
		"/now":      `"hook":"billing_realtime"`,
		"/daily":    `"hook":"billing_daily","delivery":"daily","daily_zone":"UTC","daily_at":"` + dailyAt + `"`,
		"/accounts": `"hook":"account_events"`,
	} {
		operator.call(t, 201, "PUT", "1/webhooks", `{"data":{"name":"n","uri":"`+server.URL+path+`","include_subaccounts":true,`+fields+`}}`)
	}

	var want []string
	for _, one := range platformDaily {
		db.Exec(t, one.sql)
		want = append(want, "/daily day "+one.body)
	}
	for _, one := range platformRealtime {
		db.Exec(t, one.sql)
		path := "/now evt "
		if strings.Contains(one.body, "updated_fields") {
			path = "/accounts evt "
		}
		want = append(want, path+one.body)
	}
	wantArrived(t, arrived, want[len(platformDaily):])

	// What was counted, it counted yesterday.
	db.Exec(t, `UPDATE walhook.daily SET day = day - 1, since = since - interval '1 day'; UPDATE walhook.daily_count SET period = period - 1;
		UPDATE walhook.webhooks_version SET version = version + 1`)
	wantArrived(t, arrived, want[:len(platformDaily)])
	process.stop(t)
	mustRun(t, "teardown", "--source", db.URL, "--slot", slot, "--outbox")
	if more := len(arrived); more > 0 {
		t.Errorf("%d more arrived, such as %s", more, <-arrived)
	}
}

// wantArrived waits for as many requests as are wanted, and compares them in
// whatever order they came.
func wantArrived(t *testing.T, arrived <-chan string, want []string) {
	t.Helper()
	var got []string
	for deadline := time.After(patience); len(got) < len(want); {
		select {
		case one := <-arrived:
			got = append(got, one)
		case <-deadline:
			t.Fatalf("only %d of %d arrived:\n\t%s", len(got), len(want), strings.Join(got, "\n\t"))
		}
	}
	want = slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("arrived\n got %s\nwant %s", got[i], want[i])
		}
	}
}
