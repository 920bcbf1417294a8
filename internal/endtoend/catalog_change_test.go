package endtoend

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// changedShopCatalog follows shopCatalog: items lose a field and gain one, and parts,
// which belong through items, are new.
const changedShopCatalog = `
account: {table: public.account, id: id, url: url}
schemas:
  items: {table: public.item, owner: account, fields: [id, n, note]}
  parts: {table: public.part, owner: {column: item, schema: items}, fields: [id, item, n]}
`

const partTable = `
CREATE TABLE part (id bigint PRIMARY KEY, item bigint NOT NULL, n bigint NOT NULL);
INSERT INTO item (id, account, n) SELECT a * 100 + i, a, 0 FROM generate_series(1, 3) a, generate_series(0, 9) i;
INSERT INTO part (id, item, n) SELECT id, id, 0 FROM item`

// turning raises the number of an item and of its part in one transaction, again and
// again, until ctx ends. It returns how often each was raised.
func turning(t *testing.T, ctx context.Context, url string) (raised map[int64]int64, err error) {
	raised = map[int64]int64{}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for turn := int64(0); ctx.Err() == nil; turn++ {
		id := (turn%3+1)*100 + turn/3%10
		_, err := conn.Exec(t.Context(), fmt.Sprintf("BEGIN; UPDATE item SET n = n + 1 WHERE id = %d; UPDATE part SET n = n + 1 WHERE id = %d; COMMIT", id, id))
		if err != nil {
			return nil, err
		}
		raised[id]++
	}
	return raised, nil
}

// wantCatalogEvents compares the log with what was committed: each item's events are
// complete, by the former catalog up to a position and by the new one from there on, and
// each part's are complete from there on.
func (s *shop) wantCatalogEvents(t *testing.T, raised map[int64]int64) {
	t.Helper()
	conn := s.outbox.Connect(t)
	rows, err := conn.Query(t.Context(), `
		SELECT e.schema, p.account, e.committed_at, convert_from(e.body, 'UTF8') FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint ORDER BY e.id`)
	if err != nil {
		t.Fatal(err)
	}
	var schema, account, body string
	var at time.Time
	items, parts, former, changed := map[int64]int64{}, map[int64]int64{}, 0, 0
	_, err = pgx.ForEachRow(rows, []any{&schema, &account, &at, &body}, func() error {
		var event struct{ Data string }
		var data struct{ ID, Account, N int64 }
		if err := json.Unmarshal([]byte(body), &event); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(event.Data), &data); err != nil {
			return err
		}
		if want := fmt.Sprint(data.ID / 100); account != want {
			t.Errorf("account %s got an event of account %s: %s", account, want, body)
		}
		switch {
		case data.N == 0: // as they were made
		case schema == "items":
			if data.N != items[data.ID]+1 {
				t.Errorf("item %d: %d follows %d", data.ID, data.N, items[data.ID])
			}
			items[data.ID] = data.N
			switch isFormer := strings.Contains(event.Data, `"account"`); {
			case !isFormer:
				changed++
			case changed > 0:
				t.Errorf("the former catalog made an event after the new one: %s", body)
			default:
				former++
			}
		case changed == 0 || parts[data.ID] != 0 && data.N != parts[data.ID]+1 || data.N != items[data.ID]:
			t.Errorf("part %d: %d follows %d, its item is at %d", data.ID, data.N, parts[data.ID], items[data.ID])
			fallthrough
		default:
			parts[data.ID] = data.N
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for id, n := range raised {
		if items[id] != n || parts[id] != n {
			t.Errorf("item and part %d were raised to %d, the last events say %d and %d", id, n, items[id], parts[id])
		}
	}
	if former == 0 || changed == 0 {
		t.Errorf("%d events of items by the former catalog, %d by the new one", former, changed)
	}
	var gaps int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM walhook.gap").Scan(&gaps); err != nil || gaps > 0 {
		t.Errorf("%d gaps, err %v", gaps, err)
	}
	t.Logf("%d events of items by the former catalog, %d by the new one", former, changed)
}

// A table is added and fields change while the publisher runs, or while nothing does.
func TestCatalogChange_IsAdoptedWithoutAGap(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ running, killed bool }{
		"while run publishes":     {running: true},
		"while nothing publishes": {},
		"with a publisher killed": {running: true, killed: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, 3, func(string) string { return "http://127.0.0.1:9/hook" })
			s.db.Exec(t, partTable)
			changed := filepath.Join(t.TempDir(), "changed.yaml")
			if err := os.WriteFile(changed, []byte(changedShopCatalog), 0o600); err != nil {
				t.Fatal(err)
			}
			var publisher *actor
			if test.running {
				publisher = s.publisher(t)
				startAll(t, publisher)
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var raised map[int64]int64
			var adopted atomic.Bool
			group := errgroup.Group{}
			group.Go(func() (err error) {
				raised, err = turning(t, ctx, s.db.URL)
				return err
			})
			if test.killed {
				group.Go(func() error {
					// Each lives longer than the one before: on a busy machine the first do not
					// come so far as to adopt anything.
					for life := 1500 * time.Millisecond; !adopted.Load() && t.Context().Err() == nil; life += life / 2 {
						linger(t.Context(), life)
						_ = publisher.end(syscall.SIGKILL)
						if err := publisher.start(t); err != nil {
							return err
						}
					}
					return nil
				})
			}
			time.Sleep(500 * time.Millisecond) // for some events before
			mustRun(t, "setup", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", changed)
			adopted.Store(true)
			time.Sleep(500 * time.Millisecond) // and some after
			stop()
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			if !test.running {
				publisher = s.publisher(t) // with the former file: the catalog in force is the outbox's
				startAll(t, publisher)
			}
			s.storedAll(t)
			s.wantCatalogEvents(t, raised)
		})
	}
}

// storedAll waits until all that is committed now has been stored.
func (s *shop) storedAll(t *testing.T) {
	t.Helper()
	source, outbox := s.db.Connect(t), s.outbox.Connect(t)
	var lsn string
	if err := source.QueryRow(t.Context(), "SELECT pg_current_wal_insert_lsn()::text").Scan(&lsn); err != nil {
		t.Fatal(err)
	}
	s.db.Exec(t, "SELECT pg_logical_emit_message(true, 'marker', '')")
	eventually(t, 90*time.Second, func() bool {
		var there bool
		const sql = "SELECT EXISTS (SELECT FROM walhook.position WHERE flush_lsn > $1::text::pg_lsn)"
		if err := outbox.QueryRow(t.Context(), sql, lsn).Scan(&there); err != nil {
			t.Fatal(err)
		}
		return there
	})
}
