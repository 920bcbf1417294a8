package outbox

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"walhook/doctor"
	"walhook/outbox/route"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// refuse has the server refuse rows, with an error code, as it refuses a value
// that cannot be stored.
func refuse(t *testing.T, w *world, table, when, code string) {
	t.Helper()
	name := "refuse_" + strings.ReplaceAll(table, ".", "_")
	w.exec(t, fmt.Sprintf(`CREATE OR REPLACE FUNCTION public.%s() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF %s THEN RAISE EXCEPTION 'refused' USING ERRCODE = '%s'; END IF;
			RETURN NEW;
		END $$`, name, when, code))
	w.exec(t, fmt.Sprintf(`CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION public.%s()`, table, name))
}

// poison puts one bad item among good ones into a loop, runs the loop, and says
// whether the good ones were served. It fails the test where they were not.
type poison func(t *testing.T)

// poisons has one for each loop.
func poisons() map[loop]poison {
	return map[loop]poison{
		loopAppend: poisonAppend, loopAccounts: poisonAccounts, loopWebhooks: poisonWebhooks, loopEndpoints: poisonEndpoints,
		loopHandover: poisonHandover, loopTail: poisonTail, loopRetries: poisonRetries, loopSettle: poisonSettle, loopLanes: poisonLanes,
		loopInbox: poisonInbox, loopReplay: poisonReplay, loopResync: poisonResync, loopDays: poisonDays, loopRetention: poisonRetention,
		loopMaintain: poisonMaintenance, loopLists: poisonLists, loopDescriptions: poisonDescriptions,
	}
}

// Every loop that serves many survives one bad item: it is set aside, counted
// and named, and the rest goes on. A loop without its poison fails here.
func TestIsolation_EachLoopSurvivesItsPoison(t *testing.T) {
	t.Parallel()
	all := poisons()
	for l, what := range loops() {
		t.Run(string(l), func(t *testing.T) {
			if what == "" {
				t.Error("the table of loops does not say what becomes of its item")
			}
			if all[l] == nil {
				t.Fatal("no poison is known for this loop")
			}
			all[l](t)
		})
	}
}

// wantAside wants exactly one item of a loop counted and noted down.
func (w *world) wantAside(t *testing.T, l loop, reason string) {
	t.Helper()
	wantLines(t, all[string](t, w, `SELECT loop || ' ' || reason FROM walhook.set_aside WHERE loop = $1`, string(l)), string(l)+" "+reason)
	if n := testutil.ToFloat64(w.store.metrics.setAside.WithLabelValues(string(l), reason)); n != 1 {
		t.Errorf("walhook_items_set_aside_total{loop=%q,reason=%q} is %g", l, reason, n)
	}
	found := false
	for _, finding := range Examine(t.Context(), w.store.cfg, doctor.Options{}) {
		found = found || finding.ID == checkAside && finding.Status == doctor.Failed && strings.Contains(finding.Evidence, string(l))
	}
	if !found {
		t.Error("doctor does not name it")
	}
}

func poisonAppend(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7), account(8))
	refuse(t, f.world, "walhook.event", "NEW.record = 'dids:13'", "22021")
	var txs [][]schemas.Change
	for id := 10; id < 20; id++ {
		txs = append(txs, f.tx(dids.Insert(id, 7+id%2, "n"), faxes.Insert(id, id, "1")))
	}
	b := batch(txs...)
	f.append(t, b)
	var want []string
	for id := 10; id < 20; id++ {
		if id != 13 {
			want = append(want, fmt.Sprint("dids:", id))
		}
		want = append(want, fmt.Sprint("faxes:", id)) // also the child of the one that is set aside
	}
	wantLines(t, all[string](t, f.world, "SELECT record FROM walhook.event ORDER BY id"), append([]string{"users:7", "users:8"}, want...)...)
	wantLines(t, all[string](t, f.world, "SELECT concat_ws(' ', schema, key, reason) FROM walhook.unrouted"), "dids 13 unstorable")
	f.wantSkipped(t, map[string]int{route.SkipUnstorable: 1})
	if c := f.takeOver(t); c.Position != b.Position || c.Flush != b.Flush || c.Xid != b.Xid {
		t.Errorf("position %+v, want that of the batch", c)
	}
	f.wantAside(t, loopAppend, asideUnstorable)
}

// An account whose change cannot be stored is not served at its former URL.
func TestIsolation_AnAccountIsHeldWhoseNewURLCannotBeStored(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]schemas.Change{
		"another URL": setURL(urlA, urlB),
		"its end":     {Kind: schemas.Delete, Relation: users.Relation, Old: row(7, "n", urlA, nil)},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFeedAlone(t)
			f.commit(t, users.Insert(7, "n", urlA, nil), account(8))
			refuse(t, f.world, "walhook.endpoint", "TG_OP = 'UPDATE' AND NEW.account = '7' AND NEW.state <> 'unusable' AND NEW.url IS DISTINCT FROM 'https://c.example.com/'", "22021")
			f.forget(t)
			f.append(t, batch(f.tx(change), f.tx(dids.Insert(1, 7, "n"), dids.Insert(2, 8, "n"))))
			wantLines(t, all[string](t, f.world, "SELECT concat_ws(' ', state, coalesce(url, '-'), reason) FROM walhook.endpoint WHERE account = '7'"),
				"unusable - "+reasonUnstored)
			wantLines(t, all[string](t, f.world, "SELECT concat_ws(' ', schema, key, reason) FROM walhook.unrouted"), "users 7 unstorable")
			f.wantSkipped(t, map[string]int{route.SkipUnstorable: 1})
			f.wantAside(t, loopAppend, asideUnstorable)
			f.restart(t)
			f.commit(t, setURL(urlB, "https://c.example.com/"))
			f.wantEndpoint(t, "active 3 https://c.example.com/ from 0")
		})
	}
}

// However large a batch is, what cannot be stored of it costs one transaction more.
func TestIsolation_WhatCannotBeStoredCostsOneTransactionMore(t *testing.T) {
	t.Parallel()
	for name, poisons := range map[string][]int{"none": nil, "one": {700}, "first and last": {0, 1023}, "many": {3, 4, 5, 99, 512, 513, 900}} {
		t.Run(name, func(t *testing.T) {
			f := newFeedAlone(t)
			f.commit(t, account(7))
			f.exec(t, "CREATE TABLE public.poison AS SELECT 'dids:' || unnest($1::int[]) AS record", poisons)
			refuse(t, f.world, "walhook.event", "NEW.record IN (SELECT record FROM public.poison)", "22021")
			// Sequences do not roll back: every transaction of the publisher counts.
			f.exec(t, "CREATE SEQUENCE public.transactions")
			for name, args := range map[string]string{"assert_epoch": "(mine bigint, timeline text)", "assert_append": "(mine bigint, webhooks bigint, timeline text)"} {
				f.exec(t, "ALTER FUNCTION walhook."+name+args+" RENAME TO "+name+"_itself")
				f.exec(t, "CREATE FUNCTION walhook."+name+args+` RETURNS void LANGUAGE plpgsql AS $$
					BEGIN PERFORM nextval('public.transactions'); PERFORM walhook.`+name+"_itself"+strings.NewReplacer(" bigint", "", " text", "").Replace(args)+`; END $$`)
			}
			changes := make([]schemas.Change, 1024)
			for id := range changes {
				changes[id] = dids.Insert(id, 7, "n")
			}
			f.commit(t, changes...)
			if n := f.count(t, "event"); n != 1+len(changes)-len(poisons) {
				t.Errorf("%d events", n)
			}
			if n := f.count(t, "unrouted WHERE reason = 'unstorable'"); n != len(poisons) {
				t.Errorf("%d changes are listed as unstorable, want %d", n, len(poisons))
			}
			want, most := 1, 1
			if len(poisons) > 0 {
				want, most = 2, 4 // a slow machine needs another for what is left
			}
			if n := one[int](t, f.world, "SELECT last_value FROM public.transactions"); n < want || n > most {
				t.Errorf("%d transactions, want %d", n, want)
			}
		})
	}
}

func poisonAccounts(t *testing.T) {
	t.Run("its secret", poisonAccountSecret)
	for name, bad := range map[string]string{"null": "NULL", "itself": "'8'", "nobody": "''", "endless": "repeat('9', 5000)"} {
		t.Run("above: "+name, func(t *testing.T) { poisonAccountTree(t, bad) })
	}
	for name, bad := range map[string]string{
		"null": "NULL", "a null within": "ARRAY[NULL, '1']", "no JSON": `ARRAY['{"x":', '1']`,
		"two dimensions": "ARRAY[ARRAY['1', '2'], ARRAY['3', '4']]",
	} {
		t.Run("columns: "+name, func(t *testing.T) { poisonAccountColumns(t, bad) })
	}
	t.Run("its token", poisonAccountToken)
}

func poisonAccountTree(t *testing.T, bad string) {
	f := newFeedAlone(t)
	f.commit(t, memberInsert(1, nil), memberInsert(7, 1), memberInsert(8, 1), memberInsert(9, 1))
	f.exec(t, "ALTER TABLE walhook.account ALTER parent DROP NOT NULL, DROP CONSTRAINT account_parent_is_another")
	f.exec(t, "UPDATE walhook.account SET parent = "+bad+" WHERE id = '8'")
	f.restart(t)
	if got := fmt.Sprint(f.publisher.view.Parents); got != "map[7:1 9:1]" {
		t.Errorf("the tree is %s, want that of the others", got)
	}
	f.commit(t, dids.Insert(1, 7, "n"), dids.Insert(2, 8, "n"))
	f.wantAside(t, loopAccounts, asideUnreadable)
	f.commit(t, members.Update(member(8, notSent), member(8, 1)))
	f.restart(t)
	f.wantTree(t, "7 under 1", "8 under 1", "9 under 1")
	if n := f.count(t, "set_aside"); n != 0 {
		t.Errorf("%d items are set aside after the account was written again", n)
	}
}

func poisonAccountColumns(t *testing.T, bad string) {
	f := newFeedOf(t, newWorldAlone(t), billingCatalog)
	f.commit(t, payers.Insert(7, "n", nil, nil, "S-7", "p"), payers.Insert(8, "n", nil, nil, "S-8", "p"), payers.Insert(9, "n", nil, nil, "S-9", "p"))
	for _, account := range []string{"7", "8", "9"} {
		f.webhook(t, account, "w"+account, "hook = 'number'")
	}
	f.exec(t, "ALTER TABLE walhook.account_column ALTER columns DROP NOT NULL")
	f.exec(t, "UPDATE walhook.account_column SET columns = "+bad+" WHERE account = '8'")
	f.restart(t)
	f.commit(t, dids.Insert(1, 7, "n"), dids.Insert(2, 8, "n"), dids.Insert(3, 9, "n"))
	sent := strings.Join(f.sent(t), "\n")
	for _, want := range []string{"S-7", "S-9"} {
		if !strings.Contains(sent, want) {
			t.Errorf("no event with %s:\n%s", want, sent)
		}
	}
	f.wantAside(t, loopAccounts, asideUnreadable)
}

func poisonAccountToken(t *testing.T) {
	w := newWorldAlone(t)
	w.exec(t, "INSERT INTO walhook.token (hash, id, account, subaccounts, name) SELECT sha256('x'), n, n, false, '' FROM unnest(ARRAY['7']) n")
	w.exec(t, "ALTER TABLE walhook.token ALTER created_at DROP NOT NULL")
	w.exec(t, "UPDATE walhook.token SET created_at = NULL")
	var at time.Time
	err := w.store.pool.QueryRow(t.Context(), "SELECT created_at FROM walhook.token").Scan(&at)
	if !w.store.Access().TokenRead(t.Context(), "aa", err) || w.store.Access().TokenRead(t.Context(), "bb", nil) {
		t.Errorf("a token that cannot be read counts as one, or another does not: %v", err)
	}
	w.wantAside(t, loopAccounts, asideUnreadable)
}

func poisonAccountSecret(t *testing.T) {
	f := newFeedIn(t, newWorld(t, withKey(1)))
	f.commit(t, users.Insert(7, "n", urlA, "whsec_b3du"), account(8))
	f.exec(t, "UPDATE walhook.endpoint SET secret = 'sealed:v1:AAAA' WHERE account = '7'")
	f.restart(t)
	f.commit(t, dids.Insert(1, 7, "n"), dids.Insert(2, 8, "n"))
	wantLines(t, all[string](t, f.world, "SELECT record FROM walhook.event ORDER BY id OFFSET 2"), "dids:1", "dids:2")
	f.wantAside(t, loopAccounts, asideSecret)
}

func poisonWebhooks(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	for _, account := range []string{"7", "8", "9"} {
		f.exec(t, `INSERT INTO walhook.endpoint (account, webhook, url, state, secret) VALUES ($1, 'hook', 'https://example.com/', 'active', 'whsec_eA==')`, account)
	}
	f.exec(t, `UPDATE walhook.endpoint SET schemas = '{NULL}' WHERE account = '8'`)
	// What JavaScript leaves of half an emoji: json stores it, and ->> does not decode it.
	f.exec(t, `UPDATE walhook.endpoint SET custom_data = '{"greeting":"hi \ud83d","type":"\ud83d"}', hook = 'notifications' WHERE account = '9'`)
	f.restart(t)
	f.commit(t, dids.Insert(1, 7, "n"))
	if n := f.count(t, "event"); n != 3 {
		t.Errorf("%d events, want 3: of the account's own endpoint two, of its webhook one", n)
	}
	if w := f.publisher.view.Webhooks["9"]; len(w) != 1 {
		t.Error("custom data with half a surrogate pair leave its webhook out")
	}
	f.wantAside(t, loopWebhooks, asideUnreadable)
	f.exec(t, `UPDATE walhook.endpoint SET schemas = '{}' WHERE account = '8'`)
	f.restart(t)
	if n := f.count(t, "set_aside"); n != 0 || len(f.publisher.view.Webhooks["8"]) != 1 {
		t.Errorf("%d items are set aside after it was fixed", n)
	}
}

func poisonEndpoints(t *testing.T) {
	w := newWorldAlone(t, withKey(1))
	var list []int64
	for n := range 20 {
		list = append(list, w.endpoint(t, fmt.Sprint(n)))
	}
	good := list[4]
	w.exec(t, "UPDATE walhook.endpoint SET secret = 'sealed:v1:AAAA' WHERE id = $1", list[3])
	s, _ := w.join(t)
	states := func() map[int64]EndpointState {
		t.Helper()
		endpoints, err := s.Endpoints(t.Context(), list)
		if err != nil || len(endpoints) != len(list) {
			t.Fatalf("%d endpoints, %v", len(endpoints), err)
		}
		got := map[int64]EndpointState{}
		for _, e := range endpoints {
			got[e.ID] = e.State
		}
		return got
	}
	if got := states(); got[list[3]] != EndpointUnusable || got[good] != EndpointActive {
		t.Errorf("states %v", got)
	}
	w.wantAside(t, loopEndpoints, asideSecret)
	held, err := w.store.Access().HeldReasons(t.Context(), list)
	if err != nil || len(held) != 1 || !strings.Contains(held[list[3]].Text, "--secret-key") {
		t.Errorf("held are %+v, %v", held, err)
	}
	// It is well again by itself, in the same revision.
	w.exec(t, "UPDATE walhook.endpoint SET secret = 'whsec_eA==' WHERE id = $1", list[3])
	s.lookedAgain = time.Time{}
	changed, _, err := s.EndpointsChanged(t.Context(), time.Now().Add(time.Hour))
	if err != nil || len(changed) != 1 || changed[0].ID != list[3] {
		t.Errorf("changed %v, %v", changed, err)
	}
	if got := states(); got[list[3]] != EndpointActive || w.count(t, "set_aside") != 0 {
		t.Errorf("states %v after it was fixed", got)
	}
	// A row of which nothing but the id can be read.
	w.exec(t, "ALTER TABLE walhook.endpoint ALTER revision DROP NOT NULL")
	w.exec(t, "UPDATE walhook.endpoint SET revision = NULL WHERE id = $1", list[5])
	if got := states(); got[list[5]] != EndpointUnusable || got[good] != EndpointActive {
		t.Errorf("states %v", got)
	}
	// Changes of the others are still seen, whenever it says that it changed.
	for _, at := range []string{"'infinity'", "'-infinity'", "'294276-12-31'", "NULL", "clock_timestamp()"} {
		w.exec(t, "ALTER TABLE walhook.endpoint ALTER changed_at DROP NOT NULL")
		w.exec(t, "UPDATE walhook.endpoint SET changed_at = "+at+" WHERE id = $1", list[5])
		_, since, err := s.EndpointsChanged(t.Context(), time.Now())
		if err != nil {
			t.Fatalf("changed at %s: %v", at, err)
		}
		w.exec(t, "UPDATE walhook.endpoint SET revision = revision + 1, changed_at = clock_timestamp() WHERE id = $1", good)
		changed, _, err := s.EndpointsChanged(t.Context(), since)
		if err != nil || !slices.ContainsFunc(changed, func(e EndpointRevision) bool { return e.ID == good }) {
			t.Errorf("changed at %s: %v, %v", at, changed, err)
		}
	}
}

func poisonHandover(t *testing.T) {
	w := newWorldAlone(t)
	for id := int64(1); id <= 9; id++ {
		w.exec(t, `INSERT INTO walhook.lane (endpoint, revision, behind, cursor, open, opens, last_reason) VALUES ($1::bigint, 1, true, $1::bigint * 10, false, 0, '')`, id)
		w.exec(t, `INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) VALUES ($1::bigint, $1::bigint, 'r', 1, now(), '5xx')`, id)
	}
	w.exec(t, `UPDATE walhook.lane SET failing_since = '-infinity', paused_until = 'infinity' WHERE endpoint = 4`)
	w.exec(t, `UPDATE walhook.retry SET next_at = 'infinity' WHERE endpoint = 4`)
	w.exec(t, `ALTER TABLE walhook.lane ALTER last_reason DROP NOT NULL`)
	w.exec(t, `UPDATE walhook.lane SET last_reason = NULL WHERE endpoint = 5`)
	_, h := w.join(t)
	if len(h.Lanes) != 9 || len(h.Blocked) != 9 {
		t.Fatalf("%d lanes, %d records", len(h.Lanes), len(h.Blocked))
	}
	for _, l := range h.Lanes {
		if !l.Behind || l.Cursor != l.Endpoint*10 {
			t.Errorf("lane %+v", l)
		}
	}
	w.wantAside(t, loopHandover, asideUnreadable)
}

// poisonLog has ten events of one endpoint, of which the third is damaged.
func poisonLog(t *testing.T) (w *world, s *Session, endpoint int64) {
	w = newWorldAlone(t)
	endpoint = w.endpoint(t, "7")
	w.bodies(t, 1, 10, endpoint, "dids:1", 8)
	w.exec(t, "ALTER TABLE walhook.event ALTER committed_at DROP NOT NULL")
	w.exec(t, "UPDATE walhook.event SET committed_at = NULL WHERE id = 3")
	s, _ = w.join(t)
	return w, s, endpoint
}

func (w *world) wantUnreadable(t *testing.T) {
	t.Helper()
	wantLines(t, all[string](t, w, "SELECT concat_ws(' ', event_id, endpoint, reason) FROM walhook.dead_letter WHERE reason = 'unreadable'"), "3 1 unreadable")
}

func poisonTail(t *testing.T) {
	w, s, endpoint := poisonLog(t)
	for _, q := range []TailQuery{{Shards: allShards()}, {Endpoint: endpoint, Upto: 10}} {
		q.Limit, q.MaxBytes = 100, 1<<20
		stretch, err := s.Tail(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		wantIDs(t, stretch.Events, 1, 2, 4, 5, 6, 7, 8, 9, 10)
		if stretch.Upto != 10 || stretch.More {
			t.Errorf("up to %d, more %t", stretch.Upto, stretch.More)
		}
	}
	w.wantUnreadable(t)
	w.wantAside(t, loopTail, asideUnreadable)
}

func poisonRetries(t *testing.T) {
	w, s, endpoint := poisonLog(t)
	w.exec(t, `INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) SELECT $1, n, 'dids:' || n, 1, now(), '5xx' FROM generate_series(1, 6) n`, endpoint)
	due, err := s.DueRetries(t.Context(), RetryQuery{Endpoint: endpoint, Now: time.Now(), Limit: 10, MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	wantIDs(t, due.Events, 1, 2, 4, 5, 6)
	w.wantUnreadable(t)
	w.wantAside(t, loopRetries, asideUnreadable)
	if n := w.count(t, "retry"); n != 5 {
		t.Errorf("%d rows are in retry, want 5", n)
	}
}

func poisonSettle(t *testing.T) {
	for name, refused := range map[string]string{"its text": "NEW.detail = 'poison'", "its row": "NEW.event_id = 50"} {
		t.Run(name, func(t *testing.T) { poisonSettlement(t, refused) })
	}
}

func poisonSettlement(t *testing.T, refused string) {
	w := newWorldAlone(t)
	endpoint := w.endpoint(t, "7")
	w.bodies(t, 1, 100, endpoint, "dids:1", 8)
	refuse(t, w, "walhook.attempt", refused, "22P05")
	s, _ := w.join(t)
	var fates []Settlement
	for id := int64(1); id <= 100; id++ {
		fates = append(fates, delivered(Event{ID: id, Endpoint: endpoint, Revision: 1, Record: "dids:1"}))
	}
	fates[49] = dead(fates[49].Event)
	fates[49].Attempt.Detail, fates[49].Attempt.Status = "poison", 1<<40
	w.settle(t, s, fates...)
	if n := one[int](t, w, "SELECT count(*) FROM walhook.attempt WHERE outcome = 'delivered' AND event_id <> 50"); n != 99 {
		t.Errorf("%d attempts of the others are stored, want 99", n)
	}
	wantLines(t, all[string](t, w, "SELECT event_id::text FROM walhook.dead_letter"), "50")
	w.settle(t, s, fates...) // its answer was lost
	if n := w.count(t, "dead_letter"); n != 1 {
		t.Errorf("%d dead letters after it was settled again", n)
	}
	w.wantAside(t, loopSettle, asideUnstorable)
}

func poisonLanes(t *testing.T) {
	w := newWorldAlone(t)
	refuse(t, w, "walhook.lane", "NEW.last_reason = 'poison' OR NEW.endpoint = 6", "22021")
	s, _ := w.join(t)
	var lanes []LaneState
	for id := int64(1); id <= 5; id++ {
		lanes = append(lanes, LaneState{Endpoint: id, Revision: 1, Behind: true, Cursor: id * 10, FailingSince: time.Now(), LastReason: "5xx"})
	}
	lanes[2].LastReason = "poison"
	tails := []Shard{{1, 99}, {2, 99}, {3, 99}, {4, 99}, {5, 99}, {6, 99}}
	if err := s.Save(t.Context(), lanes, tails); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all[string](t, w, "SELECT concat_ws(' ', endpoint, cursor, last_reason) FROM walhook.lane ORDER BY 1"),
		"1 10 5xx", "2 20 5xx", "3 30 ", "4 40 5xx", "5 50 5xx")
	w.wantAside(t, loopLanes, asideUnstorable)
	// Where not even the cursor can be stored, the tail does not pass by, not even on giving up.
	if err := s.Save(t.Context(), append(lanes, LaneState{Endpoint: 6, Revision: 1, Behind: true, Cursor: 5}), tails); err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), []Shard{{1, 120}, {6, 120}}); err != nil {
		t.Fatal(err)
	}
	_ = s.Leave(t.Context())
	if got := all[int64](t, w, "SELECT tail FROM walhook.shard WHERE id IN (1, 2) ORDER BY id"); got[0] != 120 || got[1] != 99 {
		t.Errorf("tails %v", got)
	}
}

func poisonInbox(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7))
	refuse(t, f.world, "walhook.event", "NEW.record = 'notice/13'", "22021")
	f.exec(t, `INSERT INTO walhook.inbox (account, webhook_id, record, schema, type, body) SELECT '7', 'notice_' || n, 'notice/' || n, 's', 'update', '{}' FROM generate_series(10, 20) n`)
	if err := f.publisher.emptyInbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := all[string](t, f.world, "SELECT record FROM walhook.event WHERE schema = 's' ORDER BY id"); len(got) != 10 || got[0] != "notice/10" || got[9] != "notice/20" {
		t.Errorf("appended %v", got)
	}
	wantLines(t, all[string](t, f.world, "SELECT record FROM walhook.inbox"), "notice/13") // for an operator
	f.wantAside(t, loopInbox, asideUnstorable)
}

func poisonReplay(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7), account(8))
	s, _ := f.join(t)
	f.settle(t, s, delivered(Event{ID: 1, Endpoint: 1, Revision: 1}), delivered(Event{ID: 2, Endpoint: 2, Revision: 1}))
	refuse(t, f.world, "walhook.event", "NEW.replayed AND NEW.endpoint = 1", "22021")
	for endpoint := int64(1); endpoint <= 2; endpoint++ {
		f.ask(t, request{Endpoint: endpoint, Since: time.Unix(1, 0), Rate: 100})
	}
	if _, err := f.publisher.replayDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all[string](t, f.world, "SELECT concat_ws(' ', endpoint, sent, done_at IS NOT NULL, reason <> '') FROM walhook.request ORDER BY id"), "1 0 t t", "2 1 t f")
	f.wantAside(t, loopReplay, asideUnreadable)
	t.Run("a shared body", poisonReplaySharedBody)
}

// A request for an event whose body another event carried, which is gone, ends;
// the next one is worked on.
func poisonReplaySharedBody(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7), account(8))
	s, _ := f.join(t)
	f.settle(t, s, delivered(Event{ID: 1, Endpoint: 1, Revision: 1}), delivered(Event{ID: 2, Endpoint: 2, Revision: 1}))
	f.exec(t, "UPDATE walhook.event SET body = '', body_of = 4611686018427387904, body_size = 8 WHERE id = 1")
	for endpoint := int64(1); endpoint <= 2; endpoint++ {
		f.ask(t, request{Endpoint: endpoint, Since: time.Unix(1, 0), Rate: 100})
	}
	if _, err := f.publisher.replayDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all[string](t, f.world, "SELECT concat_ws(' ', endpoint, sent, done_at IS NOT NULL, reason) FROM walhook.request ORDER BY id"),
		"1 0 t "+reasonDamaged, "2 1 t ")
	f.wantAside(t, loopReplay, asideUnreadable)
}

func poisonDays(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7), account(8))
	refuse(t, f.world, "walhook.inbox", "NEW.account = '7'", "22021")
	for endpoint := 1; endpoint <= 2; endpoint++ {
		f.exec(t, `INSERT INTO walhook.daily_run (endpoint, day, began_at, ended_at, zone, commit_lsn, ordinal) VALUES ($1, '2024-01-02', now(), now(), 'UTC', '0/0', 0)`, endpoint)
		f.exec(t, `INSERT INTO walhook.daily_count (endpoint, period, account, kin, hook, type, format, n, head, tail) VALUES ($1::bigint, '2024-01-01', ($1::bigint + 6)::text, 'k', 'h', 't', 'json', 3, '{"count":', '}')`, endpoint)
	}
	if err := f.publisher.sendDays(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all[string](t, f.world, "SELECT concat_ws(' ', endpoint, sent_at IS NOT NULL) FROM walhook.daily_run ORDER BY 1"), "1 f", "2 t")
	wantLines(t, all[string](t, f.world, "SELECT account FROM walhook.inbox"), "8")
	f.wantAside(t, loopDays, asideUnstorable)
	// Taken off the list by an operator, and still the same, it is set aside again.
	f.exec(t, "DELETE FROM walhook.set_aside")
	if err := f.publisher.sendDays(t.Context()); err != nil || f.count(t, "set_aside") != 1 {
		t.Fatalf("%d are set aside, %v", f.count(t, "set_aside"), err)
	}
	// Once an operator has fixed it, it is sent.
	f.exec(t, "DROP TRIGGER refuse ON walhook.inbox")
	f.exec(t, "DELETE FROM walhook.set_aside")
	if err := f.publisher.sendDays(t.Context()); err != nil || f.count(t, "inbox") != 2 {
		t.Errorf("%d in the inbox, %v", f.count(t, "inbox"), err)
	}
}

// Days that no calendar has, of a webhook that is daily, of one that was, and of
// nobody: the others begin and end theirs.
func TestIsolation_AnInvalidDayStopsNoOther(t *testing.T) {
	t.Parallel()
	for _, day := range []string{"infinity", "-infinity", "5874897-12-31", "4713-01-01 BC"} {
		t.Run(day, func(t *testing.T) {
			f := newFeedAlone(t)
			f.commit(t, account(7), account(8))
			for n := 1; n <= 2; n++ {
				f.exec(t, `INSERT INTO walhook.endpoint (account, webhook, url, state, secret, hook, delivery) VALUES ($1, 'daily', 'https://example.com/', 'active', 'whsec_x', 'all', 'daily')`, fmt.Sprint(6+n))
			}
			bad := one[int64](t, f.world, "SELECT id FROM walhook.endpoint WHERE account = '7' AND webhook = 'daily'")
			f.exec(t, `INSERT INTO walhook.daily VALUES ($1, $2::text::date, now()), (-5, $2::text::date, now())`, bad, day)
			f.exec(t, `INSERT INTO walhook.daily_run (endpoint, day, began_at, ended_at, zone, commit_lsn, ordinal) VALUES ($1, $2::text::date, '-infinity', 'infinity', 'UTC', '0/0', 0), (-5, '2024-01-02', now(), now(), 'UTC', '0/0', 0)`, bad, day)
			f.restart(t)
			f.commit(t, dids.Insert(1, 8, "n"))
			if n := one[int](t, f.world, "SELECT count(*) FROM walhook.daily_count WHERE account = '8'"); n != 1 {
				t.Errorf("%d counts of the other webhook, want 1", n)
			}
			if err := f.publisher.sendDays(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := one[int](t, f.world, "SELECT count(*) FROM walhook.daily_run WHERE sent_at IS NOT NULL"); n != 1 {
				t.Errorf("%d of the other days are sent, want 1", n)
			}
			if n := one[int](t, f.world, "SELECT count(*) FROM walhook.set_aside WHERE loop = 'days'"); n < 2 {
				t.Errorf("%d days are set aside", n)
			}
		})
	}
}

func poisonRetention(t *testing.T) {
	w, s, endpoint := poisonLog(t)
	w.exec(t, `INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) VALUES ($1, 3, 'dids:1', 1, now(), '5xx'), ($1, 4, 'dids:1', 0, NULL, '')`, endpoint)
	if err := s.Expire(t.Context(), Endpoint{ID: endpoint, ExpireBefore: 9}, 4); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all[string](t, w, "SELECT concat_ws(' ', event_id, reason) FROM walhook.dead_letter ORDER BY event_id"),
		"3 unreadable", "4 retention", "5 retention", "6 retention", "7 retention", "8 retention")
	w.wantAside(t, loopRetention, asideUnreadable)
	t.Run("a revision", poisonRetentionMarks)
}

// Each endpoint with something undelivered is marked, whatever another's row is.
func poisonRetentionMarks(t *testing.T) {
	w := newWorldAlone(t)
	last, null, good := w.endpoint(t, "7"), w.endpoint(t, "8"), w.endpoint(t, "9")
	for i, endpoint := range []int64{last, null, good} {
		w.bodies(t, int64(10*i+1), int64(10*i+1), endpoint, "dids:1", 8)
	}
	w.exec(t, "ALTER TABLE walhook.endpoint ALTER feed_from DROP NOT NULL, ALTER expire_before DROP NOT NULL")
	w.exec(t, "UPDATE walhook.endpoint SET revision = 9223372036854775807 WHERE id = $1", last)
	w.exec(t, "UPDATE walhook.endpoint SET feed_from = NULL, expire_before = NULL WHERE id = $1", null)
	w.join(t)
	if err := w.store.expireBefore(t.Context(), 100); !errors.Is(err, errUndelivered) {
		t.Fatal(err)
	}
	wantLines(t, all[string](t, w, "SELECT concat_ws(' ', id, expire_before, revision) FROM walhook.endpoint ORDER BY id"),
		"1 100 9223372036854775807", "2 100 2", "3 100 2")
}

func poisonDescriptions(t *testing.T) {
	for _, bad := range []string{"'[1]'", "'null'", "'{\"\\ud83d\":1}'", `'{"OID":1,"Columns":7}'`, "NULL"} {
		t.Run(bad, func(t *testing.T) {
			f := newFeedAlone(t)
			d := &catalog.TableDescription{OID: 5, Namespace: "public", Name: "dids", From: 7}
			if err := f.publisher.Describe(t.Context(), []*catalog.TableDescription{d}); err != nil {
				t.Fatal(err)
			}
			f.exec(t, "ALTER TABLE walhook.table_description ALTER description DROP NOT NULL")
			f.exec(t, "INSERT INTO walhook.table_description (relation, from_lsn, name, description) VALUES (5, '0/9', '', "+bad+")")
			list, err := f.publisher.Descriptions(t.Context())
			if err != nil || len(list) != 1 || list[0].From != 7 {
				t.Fatalf("%d descriptions, %v", len(list), err)
			}
			f.wantAside(t, loopDescriptions, asideUnreadable)
		})
	}
}

func poisonMaintenance(t *testing.T) {
	w := newWorldAlone(t)
	w.exec(t, "CREATE TABLE walhook.attempt_00000000 (x int)")
	w.exec(t, "CREATE TABLE walhook.attempt_20200101 (LIKE walhook.attempt)")
	if err := w.store.maintainOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if one[bool](t, w, "SELECT to_regclass('walhook.attempt_20200101') IS NOT NULL") {
		t.Error("an old partition is kept because of a table that is none")
	}
	w.wantAside(t, loopMaintain, asideUnreadable)
	w.endpoint(t, "7")
	w.exec(t, "INSERT INTO walhook.owner (schema, key, account, deleted_at) VALUES ('dids', '1', '7', '2020-01-01')")
	w.exec(t, "UPDATE walhook.endpoint SET previous_secret = 'x', previous_until = '2020-01-01'")
	refuse(t, w, "walhook.endpoint", "true", "22021")
	if err := w.store.maintainOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.count(t, "owner"); n != 0 {
		t.Error("one step that the server refuses keeps another from being made")
	}
}

func poisonLists(t *testing.T) {
	w := newWorld(t)
	for n := range 5 {
		w.endpoint(t, fmt.Sprint(n))
	}
	w.exec(t, "UPDATE walhook.endpoint SET changed_at = 'infinity' WHERE account = '2'")
	var changed time.Time
	cause := w.store.pool.QueryRow(t.Context(), "SELECT changed_at FROM walhook.endpoint WHERE account = '2'").Scan(&changed)
	if cause == nil {
		t.Fatal("the row can be read")
	}
	w.store.Access().SetAsideRow(t.Context(), "endpoints", "3", 3, cause)
	w.store.Access().SetAsideRow(t.Context(), "webhooks", "3", 3, cause)
	wantLines(t, all[string](t, w, "SELECT item FROM walhook.set_aside ORDER BY item"), "endpoints 3", "webhooks 3")
}
