package cdc

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

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
	gap := w.store.gaps[0]
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
