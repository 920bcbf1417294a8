package admin

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"walhook/outbox"
)

// A damaged row is shown as far as it can be read, and set aside; the others of its
// list are shown as they are.
func TestLists_ADamagedRowHidesNoOther(t *testing.T) {
	w := newWorld(t)
	for n := range 5 {
		w.Endpoint(t, fmt.Sprint(n))
	}
	w.Exec(t, "UPDATE walhook.endpoint SET changed_at = 'infinity' WHERE account = '2'")
	infos, err := w.admin.ListEndpoints(t.Context())
	if err != nil || len(infos) != 5 || infos[2].Account != "2" || infos[2].State != outbox.EndpointUnusable || infos[3].State != outbox.EndpointActive {
		t.Errorf("%d endpoints, %v", len(infos), err)
	}
	list, err := w.admin.Webhooks(t.Context(), "2", 0, 10)
	if err != nil || len(list) != 1 || list[0].ID != outbox.AccountWebhook || list[0].State != outbox.EndpointUnusable {
		t.Errorf("webhooks %v, %v", list, err)
	}
	wantLines(t, all[string](t, w, "SELECT item FROM walhook.set_aside ORDER BY item"), "endpoints 3", "webhooks 3")
}

// An endpoint that its sender holds because of what is stored of it is listed so.
func TestLists_ShowAnEndpointAsItsSenderHasIt(t *testing.T) {
	w := newWorld(t, withKey(1))
	for n := range 5 {
		w.Endpoint(t, fmt.Sprint(n))
	}
	w.Exec(t, "UPDATE walhook.endpoint SET secret = 'sealed:v1:AAAA' WHERE account = '3'")
	if _, err := w.admin.store.Endpoints(t.Context(), all[int64](t, w, "SELECT id FROM walhook.endpoint")); err != nil {
		t.Fatal(err)
	}
	infos, err := w.admin.ListEndpoints(t.Context())
	if err != nil || infos[3].State != outbox.EndpointUnusable || !strings.Contains(infos[3].Reason, "--secret-key") || infos[3].HeldSince.IsZero() || infos[2].State != outbox.EndpointActive {
		t.Errorf("listed as %+v, %v", infos, err)
	}
}

func TestToken_ADamagedOneCountsAsNoneUntilItCanBeRead(t *testing.T) {
	w := newWorldAlone(t)
	secrets := map[string]string{}
	for _, account := range []string{"7", "8"} {
		_, secret, err := w.admin.CreateToken(t.Context(), Token{Account: account}, Once{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		secrets[account] = secret
	}
	w.Exec(t, "ALTER TABLE walhook.token ALTER created_at DROP NOT NULL")
	w.Exec(t, "UPDATE walhook.token SET created_at = NULL WHERE account = '8'")
	if _, err := w.admin.FindToken(t.Context(), secrets["8"]); !errors.Is(err, ErrNoToken) {
		t.Errorf("the token that cannot be read: %v", err)
	}
	if found, err := w.admin.FindToken(t.Context(), secrets["7"]); err != nil || found.Account != "7" {
		t.Errorf("the other token is %+v, %v", found, err)
	}
	if n := w.Count(t, "set_aside"); n != 1 {
		t.Errorf("%d items are set aside", n)
	}
	w.Exec(t, "UPDATE walhook.token SET created_at = now() WHERE account = '8'")
	if _, err := w.admin.FindToken(t.Context(), secrets["8"]); err != nil || w.Count(t, "set_aside") != 0 {
		t.Errorf("once it can be read: %v, %d items are set aside", err, w.Count(t, "set_aside"))
	}
}

// A list of all endpoints counts their rows by index, whether the plan knows the
// parameters or not.
func TestCounts_NeverScanTheRowsOfEndpoints(t *testing.T) {
	w := newWorldAlone(t)
	w.Exec(t, `INSERT INTO walhook.retry SELECT 1 + n % 200, n, 'dids:' || n, 1, now(), '5xx' FROM generate_series(1, 20000) n`)
	w.Exec(t, `INSERT INTO walhook.dead_letter SELECT now(), 1 + n % 200, n, 'dids:1', 'evt', 'dids', 'insert', now(), 1, '5xx', 200, 'x' FROM generate_series(1, 20000) n`)
	w.Exec(t, "ANALYZE")
	scan := regexp.MustCompile(`Seq Scan on (dead_letter_` + time.Now().UTC().Format("20060102") + `|retry)\b`)
	for _, table := range []string{"retry", "dead_letter"} {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			w.Exec(t, "SET plan_cache_mode = "+mode)
			w.Exec(t, "PREPARE p AS "+fmt.Sprintf(countRowsSQL, table))
			if plan := strings.Join(all[string](t, w, "EXPLAIN EXECUTE p(10000)"), "\n"); scan.MatchString(plan) {
				t.Errorf("%s, %s: it scans a table:\n%s", table, mode, plan)
			}
			w.Exec(t, "DEALLOCATE p")
		}
	}
}
