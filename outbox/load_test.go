package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// longEndpointsSQL makes endpoints that fill more than one part of a scan.
const longEndpointsSQL = `
	INSERT INTO walhook.endpoint (account, webhook, url, state, secret)
	SELECT n::text, 'account', 'https://example.com/' || repeat('x', 1000) || n, 'active', 'whsec_eA==' FROM generate_series(1, 6000) n`

// A row that changes meanwhile moves to another block. It is read once, as it was.
func TestScan_ReadsATableAsItWas(t *testing.T) {
	w := newWorldAlone(t)
	w.exec(t, longEndpointsSQL)
	w.exec(t, "DELETE FROM walhook.endpoint WHERE id % 10 = 0")
	revisions, parts := map[string]int64{}, 0
	scan := tableScan{
		table: "endpoint", id: "id", sql: "SELECT account, revision FROM walhook.endpoint WHERE webhook = 'account'",
		take: func(rows pgx.Rows) error {
			var account string
			var revision int64
			if err := rows.Scan(&account, &revision); err != nil {
				return err
			}
			if _, twice := revisions[account]; twice {
				t.Errorf("account %s was read twice", account)
			}
			revisions[account] = revision
			return nil
		},
		mark: func() func() {
			if parts++; parts == 2 { // the first part is read
				w.exec(t, "UPDATE walhook.endpoint SET revision = revision + 1")
				w.exec(t, "INSERT INTO walhook.endpoint (account, webhook, state, reason, secret) VALUES ('new', 'account', 'cleared', 'x', '')")
			}
			return func() { t.Error("a part was read again") }
		},
	}
	if err := w.store.scan(t.Context(), nil, scan); err != nil {
		t.Fatal(err)
	}
	if parts < 2 {
		t.Fatalf("the table has %d parts, which proves nothing", parts)
	}
	if n := len(revisions); n != 5400 {
		t.Errorf("%d rows were read, want 5,400", n)
	}
	for account, revision := range revisions {
		if revision != 1 {
			t.Fatalf("account %s was read as it became later", account)
		}
	}
}

// The server goes to the blocks of a part at once, also once it plans for any part.
func TestScan_ReadsNoBlockTwice(t *testing.T) {
	w := newWorldAlone(t)
	w.exec(t, longEndpointsSQL)
	conn := w.begin(t)
	execTx(t, conn, scanSettingsSQL)
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
		for _, sql := range []string{routesSQL, webhooksSQL + presentSQL} {
			for _, one := range []string{
				"SET plan_cache_mode = " + mode,
				"PREPARE part (tid, tid) AS " + sql + inPartSQL,
			} {
				if _, err := conn.Exec(t.Context(), one); err != nil {
					t.Fatal(err)
				}
			}
			rows, err := conn.Query(t.Context(), "EXPLAIN EXECUTE part ('(0,0)', '(512,0)')", pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Join(plan, "\n"), "Tid Range Scan on endpoint") {
				t.Errorf("%s:\n%s", mode, strings.Join(plan, "\n"))
			}
			if _, err := conn.Exec(t.Context(), "DEALLOCATE part"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A row that cannot be read costs its part, and neither the others nor another row.
func TestTakeOver_SetsDamagedRowsOfEveryPartAside(t *testing.T) {
	f := newFeedAlone(t)
	f.exec(t, longEndpointsSQL)
	f.exec(t, "ALTER TABLE walhook.endpoint ALTER revision DROP NOT NULL")
	f.exec(t, "UPDATE walhook.endpoint SET revision = NULL WHERE account IN ('3', '3000', '5999')")
	f.restart(t)
	if n := len(f.publisher.view.Endpoints); n != 5997 {
		t.Errorf("%d endpoints are known, want 5,997", n)
	}
	wantLines(t, all[string](t, f.world, "SELECT e.account FROM walhook.set_aside s JOIN walhook.endpoint e ON e.id = s.endpoint ORDER BY e.id"), "3", "3000", "5999")
}

// A load ends when nothing arrives, however long it took until then, and says so.
func TestLoad_EndsOnlyWithoutProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		p := &Publisher{log: zap.New(core)}
		began := time.Now()
		const steps = 100
		err := p.watched(t.Context(), func(ctx context.Context) error {
			for n := range steps {
				time.Sleep(stallTimeout - time.Second)
				p.loading.reads("endpoint", int64(n), steps)
				if ctx.Err() != nil {
					return fmt.Errorf("ended after %s: %w", time.Since(began), ctx.Err())
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		lines := logs.FilterMessage("reading the outbox").All()
		if len(lines) != steps || lines[50].ContextMap()["percent"] != int64(50) || lines[50].ContextMap()["table"] != "endpoint" {
			t.Errorf("%d lines, such as %+v", len(lines), lines)
		}
		err = p.watched(t.Context(), func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, errStalled) || p.loading != nil {
			t.Errorf("a load that stands still ends with %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err = p.watched(ctx, func(ctx context.Context) error { return ctx.Err() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a load of a process that stops ends with %v", err)
		}
	})
}

// An append may have to read all webhooks. That prolongs its time limit, as long as they
// arrive, and leaves it the time to commit.
func TestLoad_ProlongsTheTimeLimitOfAnAppend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &Publisher{log: zap.NewNop()}
		cause := errors.New("timed out")
		ctx, cancel := p.within(t.Context(), publishTimeout, cause)
		defer cancel()
		end := p.loads()
		for n := range int64(10) {
			time.Sleep(publishTimeout - time.Second)
			p.loading.reads("endpoint", n, 10)
		}
		end()
		time.Sleep(publishTimeout - time.Second)
		if ctx.Err() != nil {
			t.Error("an append ends while its webhooks arrive")
		}
		time.Sleep(2 * time.Second)
		if context.Cause(ctx) != cause || p.loading != nil {
			t.Errorf("an append without an answer ends with %v", context.Cause(ctx))
		}
	})
}
