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
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// Every request of a webhook has its headers: an event, its retry, a replay and a test, by
// either client. New ones take effect beside a running sender. Nothing else shows a value.
func TestRun_SendsTheHeadersOfAWebhook(t *testing.T) {
	t.Parallel()
	for _, client := range []string{"walhook", "net/http"} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var got []string // by id and key, since it was last asked
			fails := 0       // requests that are to fail yet
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				id, _, _ := strings.Cut(r.Header.Get("webhook-id"), "_")
				got = append(got, id+" "+r.Header.Get("X-Api-Key")+" "+r.Header.Get("Authorization"))
				if fails > 0 {
					fails--
					http.Error(w, "wrong key "+r.Header.Get("X-Api-Key"), http.StatusInternalServerError)
				}
			}))
			t.Cleanup(server.Close)
			db := pgtest.Database(t)
			db.Exec(t, carrier.Tables)
			db.Exec(t, `INSERT INTO users (id, username) VALUES (7, 'seven')`)
			slot, address := "headers_"+db.Name, loopback.Address(t)
			process := startChild(t, "run", "--source", db.URL, "--slot", slot, "--setup", "--listen", address, "--allow-cidr", "127.0.0.0/8", "--admin-token", chaosOperator,
				"--secret-key", base64.StdEncoding.EncodeToString([]byte(strings.Repeat("1", 32))), "--retry-schedule", "1s,1s", "--http-client", client)
			awaitReady(t, address)
			api := apiClient{"http://" + address + "/v2/accounts/7/webhooks", chaosOperator}
			made := data(t, api.call(t, 201, "PUT", "", fmt.Sprintf(`{"data":{"name":"n","uri":%q,"headers":{"X-Api-Key":"hunter2-one","Authorization":"Bearer hunter2"}}}`, server.URL)))
			hook := "/" + made["id"].(string)
			n := 0
			arrive := func(when string, requests int, want string) {
				t.Helper()
				eventually(t, patience, func() bool { mu.Lock(); defer mu.Unlock(); return len(got) >= requests })
				mu.Lock()
				defer mu.Unlock()
				for _, one := range got {
					if one != want {
						t.Errorf("%s: %s, want %s", when, one, want)
					}
				}
				got = nil
			}
			change := func() {
				n++
				db.Exec(t, fmt.Sprintf("INSERT INTO dids (id, user_id, number) VALUES (%d, 7, 'x')", n))
			}
			fails = 1
			change()
			arrive("an event and its retry", 2, "evt hunter2-one Bearer hunter2")
			api.call(t, 202, "POST", hook+"/replay", `{"data":{"since":"`+time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)+`"}}`)
			arrive("a replay", 1, "evt hunter2-one Bearer hunter2")
			api.call(t, 200, "POST", hook+"/test", "")
			arrive("a test", 1, "test hunter2-one Bearer hunter2")
			api.call(t, 200, "PATCH", hook, `{"data":{"headers":{"Authorization":"…","X-Api-Key":"hunter2-two"}}}`)
			conn := db.Connect(t)
			change() // it names the revision, which the sender reads first
			arrive("after an edit", 1, "evt hunter2-two Bearer hunter2")
			api.call(t, 200, "PATCH", hook, `{"data":{"headers":null}}`)
			change()
			arrive("without headers", 1, "evt  ")
			list, err := conn.Query(t.Context(), `SELECT c.oid::regclass::text FROM pg_catalog.pg_class c WHERE relnamespace = 'walhook'::regnamespace AND relkind = 'r'`)
			var tables []string
			for err == nil && list.Next() {
				var table string
				if err = list.Scan(&table); err == nil {
					tables = append(tables, table)
				}
			}
			if err != nil || len(tables) == 0 {
				t.Fatal(tables, err)
			}
			api.call(t, 200, "PATCH", hook, `{"data":{"headers":{"X-Api-Key":"hunter2-three"}}}`)
			for _, table := range tables {
				var rows int
				if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM "+table+" t WHERE t::text LIKE '%hunter2%'").Scan(&rows); err != nil || rows != 0 {
					t.Errorf("%d rows of %s show a value (%v)", rows, table, err)
				}
			}
			if text := fmt.Sprint(api.call(t, 200, "GET", "", ""), api.call(t, 200, "GET", hook, ""), api.call(t, 200, "GET", hook+"/attempts", ""), api.call(t, 200, "GET", "/attempts", "")); strings.Contains(text, "hunter2") || !strings.Contains(text, "X-Api-Key:…") {
				t.Errorf("answers %s", text)
			}
			process.stop(t)
			if strings.Contains(process.log(), "hunter2") {
				t.Error("the log shows a value")
			}
			mustRun(t, "teardown", "--source", db.URL, "--slot", slot, "--outbox")
		})
	}
}
