package endtoend

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/loopback"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
	"walhook/internal/receiver"
)

// The pipelines that alerts are seen to fire on.
const (
	busyPipeline = "busy"
	lostSlot     = "lost slot"
	notHere      = ""
)

// alertCondition is what makes an alert fire: on which pipeline, and how. Where
// no test can produce it, words say why.
type alertCondition struct{ pipeline, how string }

var alertConditions = map[string]alertCondition{
	"WalhookDown":                {busyPipeline, "the process is killed"},
	"WalhookNotRunning":          {busyPipeline, "the process is killed and not started again"},
	"WalhookRestarts":            {busyPipeline, "the process is killed and started again, four times"},
	"WalhookNoPublisher":         {busyPipeline, "the source cannot send a transaction, and reading stops there"},
	"WalhookReadingStops":        {busyPipeline, "the WAL sender is ended six times"},
	"WalhookSourceUnreadable":    {busyPipeline, "a text has a byte without a place in UTF-8"},
	"WalhookSourceRefusesWrites": {busyPipeline, "a published table loses its replica identity, and its owner is another role"},
	"WalhookSourceLag":           {busyPipeline, "a walhook that was away for two minutes starts, and the outbox takes nothing"},
	"WalhookPartitionsLow":       {busyPipeline, "a table has no partition ahead, and somebody holds a lock on it"},
	"WalhookPartitionsMissing":   {busyPipeline, "a table has no partition ahead, and somebody holds a lock on it"},
	"WalhookNothingDelivered":    {busyPipeline, "every receiver answers 500"},
	"WalhookBacklogGrows":        {busyPipeline, "11,000 events are appended, and then more"},
	"WalhookBacklogOld":          {busyPipeline, "the events are made 40 minutes older, with a retention of an hour"},
	"WalhookDeliverySlow":        {busyPipeline, "events are sent that waited for more than half a minute"},
	"WalhookAttemptsHeld":        {busyPipeline, "secrets of accounts cannot sign"},
	"WalhookManyBreakersOpen":    {busyPipeline, "every receiver answers 500"},
	"WalhookEndpointsFailing":    {busyPipeline, "the lanes' first failures are made three and a half days older"},
	"WalhookEndpointsDisabled":   {busyPipeline, "a receiver answers 410"},
	"WalhookDeadLetters":         {busyPipeline, "an event is larger than --max-event-bytes"},
	"WalhookItemsSetAside":       {busyPipeline, "an account's URL leads into a forbidden network"},
	"WalhookUnroutedChanges":     {busyPipeline, "a table is truncated"},
	"WalhookMalformedResults":    {busyPipeline, "a message is no JSON"},

	"WalhookNoSender":              {lostSlot, "the only process has the role publisher"},
	"WalhookOutboxUnreachable":     {lostSlot, "the outbox takes no connections"},
	"WalhookSlotHalfFull":          {lostSlot, "the source writes more than max_slot_wal_keep_size meanwhile"},
	"WalhookSlotNearlyFull":        {lostSlot, "the source writes more than max_slot_wal_keep_size meanwhile"},
	"WalhookSlotUnreserved":        {lostSlot, "the source writes more than max_slot_wal_keep_size meanwhile"},
	"WalhookSlotLost":              {lostSlot, "then comes a checkpoint"},
	"WalhookGap":                   {lostSlot, "the outbox is there again, and the publisher finds the slot lost"},
	"WalhookCatalogPending":        {lostSlot, "a changed catalog was asked for twenty minutes ago, and nobody publishes"},
	"WalhookReconciliationStalled": {lostSlot, "a gap was accepted twenty minutes ago, and nobody publishes"},
	"WalhookResyncStalled":         {lostSlot, "a resync was asked for an hour ago, and nobody publishes"},
	"WalhookSourceUnreachable":     {lostSlot, "the source's server is killed"},

	"WalhookSlotFillsSoon":    {notHere, "it takes a gigabyte of the source's log"},
	"WalhookSlotGrows":        {notHere, "it takes five gigabytes of the source's log"},
	"WalhookMaintenanceStale": {notHere, "it takes an hour: maintenance runs every ten minutes, and a process that starts counts from then"},
}

// alertsOn are those that a pipeline has to make fire.
func alertsOn(pipeline string) (alerts []string) {
	for alert, condition := range alertConditions {
		if condition.pipeline == pipeline {
			alerts = append(alerts, alert)
		}
	}
	slices.Sort(alerts)
	return alerts
}

// TestAlerts_HaveAConditionEach fails for an alert without a pipeline, or words,
// for an entry without an alert, and for a runbook of neither.
func TestAlerts_HaveAConditionEach(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, rule := range alertRules(t) {
		if rule.Alert == "" {
			continue
		}
		known[rule.Alert] = true
		if alertConditions[rule.Alert].how == "" {
			t.Errorf("%s: nothing is known to make it fire", rule.Alert)
		}
	}
	page, err := os.ReadFile(filepath.Join(repository, "docs/OPERATIONS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, runbook := range regexp.MustCompile(`(?m)^### (Walhook[A-Za-z]+)$`).FindAllStringSubmatch(string(page), -1) {
		if !known[runbook[1]] {
			t.Errorf("docs/OPERATIONS.md has a runbook of %s, and no such alert is there", runbook[1])
		}
	}
	without := 0
	for alert, condition := range alertConditions {
		if !known[alert] {
			t.Errorf("%s is no alert", alert)
		}
		if condition.pipeline == notHere {
			without++
		}
	}
	if without > 3 {
		t.Errorf("%d alerts are not seen to fire on a pipeline", without)
	}
}

// TestAlerts_FireOnAPipelineInTrouble runs one walhook into much at once. What a
// test cannot wait for is written into the outbox, as a walhook that ran for so
// long would have left it.
func TestAlerts_FireOnAPipelineInTrouble(t *testing.T) {
	t.Parallel()
	w := newTroubledWorld(t)
	process := w.start(t)
	w.await(t, "all is well", func(m exposition) bool {
		return m.sum("walhook_outbox_up") == 1 && m.sum("walhook_shards_unowned") == 0 && m.sum("walhook_partitions_ahead") > 0
	})
	said := record(w.address)
	said.take(t, 35, 10*time.Millisecond)
	said.wantQuiet(t)

	began := time.Now()
	w.troubles(t)
	said.take(t, 1, 0)
	for turn := range 2 { // it grows, and goes on to grow
		before := scrape(t, w.address).sum("walhook_outbox_backlog")
		w.source.Exec(t, fmt.Sprintf(`INSERT INTO dids SELECT %d + n, 1, 'more' FROM generate_series(1, 5000) n`, 50_000+turn*5000))
		w.await(t, "the backlog grows", func(m exposition) bool { return m.sum("walhook_outbox_backlog") > before })
		said.take(t, 20, 10*time.Millisecond)
	}

	time.Sleep(time.Until(began.Add(31 * time.Second))) // what waits for a secret is late by then
	for _, account := range []int{21, 22} {             // one after the other, so that it goes on for ten minutes
		w.source.Exec(t, fmt.Sprintf(`UPDATE users SET web_hook_secret = NULL WHERE id = %d`, account))
		w.await(t, "what waited is delivered", func(m exposition) bool {
			return m.sum("walhook_attempts_total", "outcome", "delivered") == float64(account-20)
		})
		said.take(t, 9, 10*time.Millisecond)
	}

	process.stop(t)
	w.outbox.Exec(t, `UPDATE walhook.lane SET failing_since = failing_since - interval '84 hours'`)
	w.outbox.Exec(t, yesterdaySQL)
	w.outbox.Exec(t, `UPDATE walhook.position SET stored_at = stored_at - interval '2 minutes'`)
	w.source.Exec(t, `INSERT INTO dids VALUES (60001, 1, 'late')`)
	takes := w.hold(t, "walhook.position IN SHARE ROW EXCLUSIVE MODE")
	process = w.start(t)
	w.await(t, "the endpoints are known to fail, and the source to be unread", func(m exposition) bool {
		return m.sum("walhook_endpoints_failing", "stage", "2") > 0 && m.sum("walhook_source_lag_seconds") > 120
	})
	said.take(t, 12, 10*time.Millisecond)
	takes()
	w.await(t, "all is stored", func(m exposition) bool { return m.sum("walhook_source_lag_seconds") == 0 })

	w.unreadable(t)
	said.take(t, 4, 10*time.Millisecond)
	for range 4 {
		process.kill(t)
		process = w.start(t)
		said.take(t, 1, 0)
	}
	process.kill(t)
	said.take(t, 4, 0)
	said.wantFired(t, alertsOn(busyPipeline)...)
}

// troubledWorld is a carrier whose role of walhook owns nothing, with receivers
// that all answer 500 or worse, but for two whose secrets are wrong.
type troubledWorld struct {
	source, outbox *pgtest.DB
	address        string
	settings       []string
}

func newTroubledWorld(t *testing.T) *troubledWorld {
	t.Helper()
	w := &troubledWorld{source: inEncoding(t, "WIN1252"), outbox: pgtest.Database(t), address: loopback.Address(t)}
	server, err := receiver.Start(receiver.Options{Behave: func(account string) receiver.Behaviour {
		switch account {
		case "13":
			return receiver.Gone()
		case "21", "22":
			return receiver.Healthy()
		}
		return receiver.Status(500)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	catalog := filepath.Join(t.TempDir(), "catalog.yaml")
	if err := os.WriteFile(catalog, []byte(heldCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	role, slot := "troubled_"+w.source.Name, "troubled_"+w.source.Name
	w.source.Exec(t, `CREATE TABLE users (id bigint PRIMARY KEY, web_hook_url text, web_hook_secret text);
		CREATE TABLE dids (id bigint PRIMARY KEY, user_id bigint, number text);
		CREATE ROLE `+role+` LOGIN REPLICATION PASSWORD 'pw'; GRANT SELECT ON users, dids TO `+role)
	base := server.URL("")
	w.source.Exec(t, fmt.Sprintf(`INSERT INTO users SELECT n, '%s' || n FROM generate_series(1, 14) n`, base))
	w.source.Exec(t, fmt.Sprintf(`INSERT INTO users SELECT n, '%s' || n, 'hunter2' FROM generate_series(21, 22) n`, base))
	shared := []string{"--slot", slot, "--catalog", catalog, "--outbox", w.outbox.URL}
	mustRun(t, append([]string{"setup", "--source", w.source.URL}, shared...)...)
	w.settings = append([]string{"run", "--source", withUser(t, w.source.URL, role, "pw"), "--listen", w.address, "--allow-cidr", "127.0.0.0/8",
		"--retention", "1h", "--max-event-bytes", "1024", "--retry-schedule", "200ms,1h"}, shared...)
	return w
}

// inEncoding is a database of another encoding.
func inEncoding(t *testing.T, encoding string) *pgtest.DB {
	t.Helper()
	db := pgtest.Database(t)
	postgres := &pgtest.DB{Cluster: db.Cluster, Name: "postgres", URL: db.Cluster.URL("postgres")}
	postgres.Exec(t, "DROP DATABASE "+db.Name)
	postgres.Exec(t, "CREATE DATABASE "+db.Name+" ENCODING '"+encoding+"' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
	return db
}

func (w *troubledWorld) start(t *testing.T) *childProcess {
	t.Helper()
	p := startChild(t, w.settings...)
	awaitListening(t, w.address)
	return p
}

// awaitListening waits for a process that need not be ready.
func awaitListening(t *testing.T, address string) {
	t.Helper()
	eventually(t, 30*time.Second, func() bool {
		response, err := http.Get("http://" + address + "/healthz")
		if err != nil {
			return false
		}
		response.Body.Close()
		return true
	})
}

// await waits until the metrics are as they should be.
func (w *troubledWorld) await(t *testing.T, what string, done func(m exposition) bool) {
	t.Helper()
	awaitMetrics(t, w.address, what, done)
}

func awaitMetrics(t *testing.T, address, what string, done func(m exposition) bool) {
	t.Helper()
	var m exposition
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if m = scrape(t, address); done(m) {
			return
		}
	}
	t.Fatalf("not in time: %s; the metrics say\n%s", what, m.own())
}

// troubles makes all that can go wrong at once, and waits until the process says
// so.
func (w *troubledWorld) troubles(t *testing.T) {
	t.Helper()
	for _, sql := range []string{
		`INSERT INTO dids SELECT n, n, 'x' FROM generate_series(2, 22) n`,
		`INSERT INTO dids SELECT 300 + n, 2 + n % 11, 'x' FROM generate_series(1, 110) n`,
		`INSERT INTO dids SELECT n, 1, 'x' FROM generate_series(1001, 12000) n`,
		`INSERT INTO dids VALUES (200, 14, repeat('x', 4000))`,
		`UPDATE users SET web_hook_url = 'http://10.1.2.3/' WHERE id = 14`,
		`SELECT pg_logical_emit_message(true, 'walhook', '{"user_id":')`,
	} {
		w.source.Exec(t, sql)
	}
	w.source.Exec(t, `TRUNCATE dids`)
	w.await(t, "all is appended", func(m exposition) bool { return m.sum("walhook_changes_skipped_total", "reason", "truncate") == 1 })
	w.source.Exec(t, `ALTER TABLE dids REPLICA IDENTITY NOTHING`)
	for _, sql := range []string{
		`UPDATE walhook.event SET appended_at = appended_at - interval '40 minutes'`,
		`DO $$ DECLARE p regclass; BEGIN
			FOR p IN SELECT inhrelid FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'walhook.dead_letter'::regclass
				AND right(c.relname, 8) > to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD')
			LOOP EXECUTE format('DROP TABLE %s', p); END LOOP; END $$`,
	} {
		w.outbox.Exec(t, sql)
	}
	w.hold(t, "walhook.dead_letter IN SHARE UPDATE EXCLUSIVE MODE") // nobody can make them
	const walsenderSQL = `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '%s' AND active_pid IS NOT NULL`
	for n := range 6 {
		reconnects := func(m exposition) bool {
			return m.sum("walhook_source_reconnects_total") > float64(n) && m.sum("walhook_source_state", "state", "reading") == 1
		}
		w.source.Exec(t, fmt.Sprintf(walsenderSQL, "troubled_"+w.source.Name))
		w.await(t, "it reads again", reconnects)
	}
	w.await(t, "everything is in trouble", func(m exposition) bool {
		return m.sum("walhook_lanes", "state", "open") > 10 && m.sum("walhook_lanes_held") >= 2 && m.sum("walhook_outbox_backlog") > 10_000 &&
			m.sum("walhook_outbox_oldest_seconds") > 2000 && m.sum("walhook_endpoints_disabled_total") == 1 && m.sum("walhook_dead_letters_total") > 0 &&
			m.sum("walhook_items_set_aside_total") > 0 && m.sum("walhook_source_tables_refusing_writes") == 1 && m.sum("walhook_partitions_ahead", "table", "dead_letter") == 0
	})
}

// hold locks a table of the outbox until it is told to release it.
func (w *troubledWorld) hold(t *testing.T, lock string) (release func()) {
	t.Helper()
	conn := w.outbox.Connect(t)
	if _, err := conn.Exec(t.Context(), `BEGIN; LOCK TABLE `+lock); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := conn.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// unreadable has the source send a text that has no place in UTF-8.
func (w *troubledWorld) unreadable(t *testing.T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.source.URL+"&client_encoding=WIN1252")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.PgConn().Exec(t.Context(), `INSERT INTO dids VALUES (70001, 1, E'a\x81b')`).ReadAll(); err != nil {
		t.Fatal(err)
	}
	w.await(t, "the source cannot send it", func(m exposition) bool { return m.sum("walhook_source_state", "state", "unreadable") == 1 })
}

// TestAlerts_FireWhileASlotIsLost has the outbox away until the source gives the
// slot up.
func TestAlerts_FireWhileASlotIsLost(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: map[string]string{
		"max_slot_wal_keep_size": "128MB", "min_wal_size": "32MB", "max_wal_size": "1GB", "wal_keep_size": "0", "checkpoint_timeout": "1h"}})
	source, outbox := pgtest.NewDatabase(t, cluster), pgtest.Database(t)
	catalog := filepath.Join(t.TempDir(), "catalog.yaml")
	if err := os.WriteFile(catalog, []byte(heldCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	source.Exec(t, `CREATE TABLE users (id bigint PRIMARY KEY, web_hook_url text, web_hook_secret text);
		CREATE TABLE dids (id bigint PRIMARY KEY, user_id bigint, number text);
		INSERT INTO users VALUES (1, 'https://example.com/')`)
	settings := []string{"--source", source.URL, "--outbox", outbox.URL, "--slot", "lost_slot", "--catalog", catalog}
	mustRun(t, append([]string{"setup"}, settings...)...)
	address := loopback.Address(t)
	publisher := startChild(t, append([]string{"run", "--role", "publisher", "--listen", address}, settings...)...)
	awaitReady(t, address)
	said := record(address)
	await := func(what string, done func(m exposition) bool) {
		t.Helper()
		awaitMetrics(t, address, what, done)
	}
	await("no sender is there", func(m exposition) bool { return m.sum("walhook_shards_unowned") == 32 })
	said.take(t, 4, 0)

	postgres := &pgtest.DB{Cluster: outbox.Cluster, Name: "postgres", URL: outbox.Cluster.URL("postgres")}
	connections := func(allowed bool) {
		t.Helper()
		postgres.Exec(t, fmt.Sprintf(`ALTER DATABASE %s ALLOW_CONNECTIONS %t`, outbox.Name, allowed))
	}
	connections(false)
	postgres.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '`+outbox.Name+`'`)
	for range 11 { // segments of 16 MB
		source.Exec(t, `SELECT pg_logical_emit_message(false, 'filler', 'x'); SELECT pg_switch_wal()`)
	}
	await("the outbox is away, and the slot holds more than it may", func(m exposition) bool {
		return m.sum("walhook_outbox_up") == 0 && m.sum("walhook_slot_wal_status", "status", "unreserved") == 1
	})
	said.take(t, 7, 0)
	source.Exec(t, `CHECKPOINT`)
	await("the slot is lost", func(m exposition) bool { return m.sum("walhook_slot_wal_status", "status", "lost") == 1 })
	said.take(t, 3, 0)

	connections(true)
	if err := publisher.cmd.Wait(); exitCodeOf(err) != exitGap {
		t.Errorf("the publisher finds its slot lost: %v", err)
	}
	outbox.Exec(t, `INSERT INTO walhook.catalog (state, fingerprint, content, asked_at) VALUES ('pending', '', '', now() - interval '20 minutes');
		INSERT INTO walhook.resync (endpoint, kind, asked_at) SELECT id, 'update', now() - interval '1 hour' FROM walhook.endpoint;
		WITH g AS (
			INSERT INTO walhook.gap (from_lsn, reason, accepted_at, missed, inserts, updates, deletes) VALUES ('0/1', 'it was', now() - interval '20 minutes', 3, 0, 0, 0) RETURNING id)
		INSERT INTO walhook.missed (gap, n, type, schema, key, account, own, body) SELECT id, 3, 'update', 'dids', '1', '1', true, '{}' FROM g`)
	publisher = startChild(t, "run", "--role", "sender", "--listen", address, "--outbox", outbox.URL)
	awaitReady(t, address)
	await("the gap is known", func(m exposition) bool {
		return m.sum("walhook_gaps_open") == 1 && m.sum("walhook_catalog_pending_seconds") > 600 &&
			m.sum("walhook_reconciliation_stalled_seconds") > 600 && m.sum("walhook_resync_stalled_seconds") > 3000
	})
	said.take(t, 2, 0)
	publisher.stop(t)

	if err := cluster.Kill(); err != nil {
		t.Fatal(err)
	}
	publisher = startChild(t, append([]string{"run", "--role", "publisher", "--listen", address}, settings...)...)
	awaitListening(t, address)
	await("the source is away", func(m exposition) bool { return m.sum("walhook_source_up") == 0 })
	said.take(t, 4, 0)
	publisher.stop(t)
	said.wantFired(t, alertsOn(lostSlot)...)
}
