package outbox

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"walhook/internal/pgtest"
)

// What is read all the time never goes through a whole table, whether the plan
// knows the parameters or not.
func TestReads_NeverScanTheLog(t *testing.T) {
	w := newWorldAlone(t)
	const endpoints, events = 200, 40_000
	w.exec(t, `
		INSERT INTO walhook.endpoint (account, url, state, secret)
		SELECT 'account ' || n, 'https://example.com/', 'active', 'whsec_eA==' FROM generate_series(1, $1::int) n`, endpoints)
	w.exec(t, `
		INSERT INTO walhook.event (id, endpoint, endpoint_revision, record, webhook_id, schema, type, committed_at, appended_at, body)
		SELECT n, 1 + n % $2, 1, 'dids:' || n % 5000, 'evt_' || n, 'dids', 'insert', now(), now(), convert_to(repeat('x', 200), 'UTF8')
		FROM generate_series(1, $1::bigint) n`, events, endpoints)
	w.exec(t, `INSERT INTO walhook.attempt SELECT now(), endpoint, id, 1, 1, '1ms', 200, 'delivered', '2xx', '' FROM walhook.event WHERE id % 50 > 0`)
	w.exec(t, `INSERT INTO walhook.retry
		SELECT endpoint, id, record, id % 4 / 2, CASE WHEN id % 4 >= 2 THEN now() + id % 3600 * interval '1 s' END, '5xx' FROM walhook.event WHERE id % 2 = 0`)
	w.exec(t, `INSERT INTO walhook.dead_letter SELECT now(), endpoint, id, record, webhook_id, schema, type, committed_at, 1, '5xx', 200, body
		FROM walhook.event WHERE id % 10 = 0`)
	w.exec(t, `INSERT INTO walhook.owner SELECT 'dids', n::text, '7', CASE WHEN n % 100 = 0 THEN now() END FROM generate_series(1, 20000) n`)
	w.exec(t, "ANALYZE")

	today := time.Now().UTC().Format(dayFormat)
	scan := regexp.MustCompile(`Seq Scan on (event_000000|attempt_` + today + `|dead_letter_` + today + `|retry|owner)\b`)
	for _, q := range []struct{ name, sql, args string }{
		{"tail of all shards", tailSQL, `(39000, 9223372036854775807, NULL, 1000, 8388608, '', 32)`},
		{"tail of one shard", tailSQL, `(39000, 9223372036854775807, '{3}', 1000, 8388608, '', 32)`},
		{"tail from the beginning", tailSQL, `(0, 9223372036854775807, '{3}', 1000, 8388608, '', 32)`},
		{"tail of unsettled events", tailUnsettledSQL, `(0, 40000, '{0,1,2,3,4,5,6,7,8,9,10,11}', 1000, 8388608, '', 32)`},
		{"lane", laneSQL, `(100, 40000, 7, 500, 8388608, '')`},
		{"lane of unsettled events", laneUnsettledSQL, `(100, 40000, 7, 500, 8388608, '')`},
		{"due retries", dueRetriesSQL, `(51, '0 s', '{}', 10, 8388608, NULL, '')`},
		{"due retries of some", dueRetriesSQL, `(51, '0 s', '{}', 2, 8388608, '{50,150}', '')`},
		{"next retry", nextRetrySQL, `(51, '0 s')`},
		{"promotion", promoteSQL, `('{51,52}', '{dids:50,dids:51}')`},
		{"promotion of an endpoint", promoteEndpointSQL, `(51)`},
		{"record states", recordStatesSQL, `('{51,52}', '{dids:50,dids:51}')`},
		{"dead letters", deadLettersSQL, `('{50,51}', '{1,1}', '{5xx,5xx}')`},
		{"a dead letter of no event", deadWithoutEventSQL, `(51, 50, 'dids:1', 'evt_50', '', '', NULL, 'unreadable', 0, '', '', '')`},
		{"expiry of the log", expirableSQL, `(51, 0, 39000, 2000)`},
		{"expiry's place", expiredUptoSQL, `(51, 0, 39000)`},
		{"expiry of retries", expireRetriesSQL, `(51, 0, 39000, 2000)`},
		{"undelivered", undeliveredSQL, `(30000, '{3,4}', 32)`},
		{"the oldest beyond the tails", oldestTailSQL, `(1000, 32)`},
		{"lanes that stand still", standingSQL, `(500, 100, 32)`},
		{"the log's end", lastIDSQL, `(39000)`},
		{"horizon", horizonSQL, ``},
		{"partition's beginning", partitionBeganSQL, `(39000)`},
		{"newest event", newestEventSQL, `(0, 16777216)`},
		{"oldest event", oldestEventSQL, ``},
		{"owners", ownersSQL, `('{dids,dids}', '{1,2}')`},
	} {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			t.Run(q.name+", "+mode, func(t *testing.T) {
				w.exec(t, "SET plan_cache_mode = "+mode)
				w.exec(t, "PREPARE p AS "+q.sql)
				defer w.exec(t, "DEALLOCATE p")
				plan := strings.Join(all[string](t, w, "EXPLAIN EXECUTE p"+q.args), "\n")
				if scan.MatchString(plan) {
					t.Errorf("it scans a table:\n%s", plan)
				}
			})
		}
	}
}

// One endpoint has most of the events, another one a few, and a third one had many. What a
// statement reads of any is no more than it asks for, whether the plan knows the endpoint
// or not.
func TestReads_OfAnEndpointPassByOthers(t *testing.T) {
	w := newWorldAlone(t)
	const events, most = 60_000, 3_000
	w.BusyAndQuiet(t, events)
	for _, q := range []struct{ name, sql, args string }{
		{"lane", laneSQL, `(6, 60000, ENDPOINT, 500, 8388608, '')`},
		{"lane of unsettled events", laneUnsettledSQL, `(6, 60000, ENDPOINT, 500, 8388608, '')`},
		{"lane of a damaged log", laneIDsSQL, `(6, 60000, 500, ENDPOINT)`},
		{"feed", feedSQL, `(6, 60000, ENDPOINT, 500, 8388608)`},
		{"feed's last events", feedLastSQL, `(ENDPOINT, 0, 500)`},
		{"expiry of the log", expirableSQL, `(ENDPOINT, 6, 60000, 500)`},
		{"expiry's ids", expirableIDsSQL, `(ENDPOINT, 6, 60000, 500)`},
		{"feed's last events after a while", feedLastSQL, `(ENDPOINT, 55000, 500)`},
		{"lane after a while", laneSQL, `(40000, 60000, ENDPOINT, 500, 8388608, '')`},
		{"replay's beginning", AppendedFromSQL, `(ENDPOINT, '2020-01-01')`},
		{"replay's orphans", orphansSQL, `(ENDPOINT, 40000, '2020-01-01', 500)`},
		{"undelivered", undeliveredSQL, `(59000, '{1,2,3}', 32)`},
		{"lanes that stand still", standingSQL, `(500, 100, 32)`},
		{"forgotten webhooks", forgetWebhooksSQL, `('0 s')`},
	} {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			for _, endpoint := range []string{"1", "2", "3"} {
				t.Run(q.name+", endpoint "+endpoint+", "+mode, func(t *testing.T) {
					w.exec(t, "SET plan_cache_mode = "+mode)
					w.exec(t, "PREPARE p AS "+q.sql)
					defer w.exec(t, "DEALLOCATE p")
					if read := pgtest.RowsRead(t, w.conn, "EXECUTE p"+strings.ReplaceAll(q.args, "ENDPOINT", endpoint)); read.Rows > most {
						t.Errorf("it reads %.0f rows: %s", read.Rows, strings.Join(read.Nodes, "; "))
					}
				})
			}
		}
	}
}
