package cdc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"walhook/internal/pgtest"
	"walhook/schemas"
)

// encoded is a database of another encoding.
func encoded(t *testing.T, encoding string) *pgtest.DB {
	t.Helper()
	db := pgtest.Database(t)
	conn, err := pgx.Connect(t.Context(), db.Cluster.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	execOn(t, conn, "DROP DATABASE "+db.Name,
		"CREATE DATABASE "+db.Name+" ENCODING '"+encoding+"' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
	return db
}

// A transaction that the source cannot send is named, with its table and the
// server's own words, and stops nothing but the reading behind it. Named by its
// position, and by that alone, it is skipped; what committed before and after it
// is stored, once.
func TestReader_SkipsTheTransactionThatTheSourceCannotSend(t *testing.T) {
	t.Parallel()
	w := newWorldIn(t, encoded(t, "WIN1252"), "")
	w.exec(t, "SET client_encoding = 'WIN1252'")
	w.exec(t, "INSERT INTO notes VALUES (1, 1, 'before')")
	// 0x81 is no character of WIN1252: it has no place in UTF-8.
	if _, err := w.conn.PgConn().Exec(t.Context(), "BEGIN; INSERT INTO notes VALUES (2, 1, 'sent'); INSERT INTO items VALUES (3, 7, E'a\\x81b'); COMMIT").ReadAll(); err != nil {
		t.Fatal(err)
	}
	w.exec(t, "INSERT INTO notes VALUES (4, 1, 'after')")

	start := func(skip schemas.LSN) (r *Reader, done chan error, stop context.CancelFunc) {
		cfg := w.cfg
		cfg.SkipUnreadable = skip
		r, err := New(cfg, w.store, quiet, prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done = make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		return r, done, cancel
	}
	r, done, stop := start(0)
	w.store.wait(t, "the transaction is noted", func() bool { return len(w.store.gaps) > 0 })
	gap := look(w.store, func() schemas.Gap { return w.store.gaps[0] })
	eventually(t, "the reader says that it cannot read", patience, func() bool { return r.State() == Unreadable })
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"public.items", "22P05", "0x81", "--skip-unreadable " + gap.From.String()} {
		if !strings.Contains(gap.Reason, words) {
			t.Errorf("the gap's reason %q does not say %q", gap.Reason, words)
		}
	}

	_, done, stop = start(gap.From + 1)
	defer stop()
	select {
	case err := <-done:
		if !errors.Is(err, ErrOtherPosition) {
			t.Errorf("with another position: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("with another position it goes on")
	}
	for range 2 { // the second time there is nothing to skip any more
		_, done, stop = start(gap.From)
		w.settle(t)
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	lines := w.lines()
	wantLines(t, lines[:1], []string{"insert public.notes new(id*=1 item_id=1 note=before)"})
	if last := lines[len(lines)-1]; last != "insert public.notes new(id*=4 item_id=1 note=after)" || len(lines) > 3 {
		t.Errorf("stored %q", lines)
	}
	if accepted := w.store.gaps[len(w.store.gaps)-1]; !accepted.Accepted || accepted.From != gap.From {
		t.Errorf("gap %+v", accepted)
	}
}

// runWith starts a reader that skips, and waits until it has come so far.
func (w *world) runWith(t *testing.T, skip schemas.LSN, log *zap.Logger, until func(*Reader) bool) error {
	t.Helper()
	cfg := w.cfg
	cfg.SkipUnreadable = skip
	r, err := New(cfg, w.store, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer cancel()
	for end := time.Now().Add(patience); !until(r); time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-done:
			return err
		default:
		}
		if time.Now().After(end) {
			t.Fatal("the reader does not come so far")
		}
	}
	cancel()
	return <-done
}

// The first transaction of the slot, with a subtransaction, while others commit
// in between, and then one that was prepared: each is named, and each is skipped
// by its own position. A position that is done with hides none that comes later.
func TestReader_SkipsOneTransactionAfterAnother(t *testing.T) {
	t.Parallel()
	w := newWorldIn(t, encoded(t, "WIN1252"), "")
	w.exec(t, "SET client_encoding = 'WIN1252'")
	run := func(sql string) {
		t.Helper()
		if _, err := w.conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	run("BEGIN; SAVEPOINT a; INSERT INTO items VALUES (1, 7, E'a\\x81b'); RELEASE a")
	execOn(t, w.watch, "INSERT INTO notes VALUES (1, 1, 'in between')")
	run("COMMIT")
	run("BEGIN; INSERT INTO items VALUES (2, 7, E'a\\x81b')")
	execOn(t, w.watch, "INSERT INTO notes VALUES (2, 1, 'in between again')")
	run("PREPARE TRANSACTION 'unreadable'")
	execOn(t, w.watch, "INSERT INTO notes VALUES (3, 1, 'while it is prepared')")
	run("COMMIT PREPARED 'unreadable'")
	execOn(t, w.watch, "INSERT INTO notes VALUES (4, 1, 'after')")

	gaps := func() []schemas.Gap { return look(w.store, func() []schemas.Gap { return slices.Clone(w.store.gaps) }) }
	stuckAt := func(n int) func(*Reader) bool {
		return func(r *Reader) bool {
			return r.State() == Unreadable && len(gaps()) >= n && !gaps()[len(gaps())-1].Accepted
		}
	}
	if err := w.runWith(t, 0, quiet, stuckAt(1)); err != nil {
		t.Fatal(err)
	}
	first := gaps()[0].From
	if err := w.runWith(t, first, quiet, stuckAt(3)); err != nil {
		t.Fatalf("with the first position, at the second: %v", err)
	}
	second := gaps()[2].From
	if !gaps()[1].Accepted || gaps()[1].From != first || second <= first {
		t.Errorf("gaps %+v", gaps())
	}
	began := time.Now()
	err := w.runWith(t, second, quiet, func(*Reader) bool {
		return slices.ContainsFunc(w.lines(), func(line string) bool { return strings.Contains(line, "note=after") })
	})
	if err != nil || time.Since(began) > 20*time.Second {
		t.Errorf("with the second position: %v after %s", err, time.Since(began))
	}
	if last := gaps()[len(gaps())-1]; !last.Accepted || last.From != second {
		t.Errorf("gap %+v", last)
	}
	lines := slices.DeleteFunc(w.lines(), func(line string) bool { return strings.Contains(line, "items") })
	wantLines(t, lines, []string{"insert public.notes new(id*=1 item_id=1 note=in between)", "insert public.notes new(id*=2 item_id=1 note=in between again)",
		"insert public.notes new(id*=3 item_id=1 note=while it is prepared)", "insert public.notes new(id*=4 item_id=1 note=after)"})
}

// Of a position at which nothing is unreadable nothing is skipped, and the
// operator is told.
func TestReader_SaysThatThereIsNothingToSkip(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	start := w.walEnd(t)
	w.exec(t, "INSERT INTO notes VALUES (1, 1, 'one')", "INSERT INTO notes VALUES (2, 1, 'two')")
	for _, test := range []struct {
		name string
		skip schemas.LSN
		want string
	}{
		{"a transaction that is sent", start + 1, "skips nothing"},
		{"behind what is stored", 1, "skips nothing"},
		{"beyond the log", w.walEnd(t) + 1<<40, "beyond the end"},
	} {
		core, logs := observer.New(zap.WarnLevel)
		end := w.mark(t)
		err := w.runWith(t, test.skip, zap.New(core), func(*Reader) bool {
			return logs.FilterMessageSnippet(test.want).Len() > 0 && w.store.has(end)
		})
		if err != nil || logs.FilterMessageSnippet("--skip-unreadable").Len() != 1 {
			t.Errorf("%s: %v, %v", test.name, err, logs.All())
		}
	}
	if got := len(w.lines()); got != 2 || len(w.store.gaps) > 0 {
		t.Errorf("%d changes, gaps %v", got, w.store.gaps)
	}
}
