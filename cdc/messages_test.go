package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"walhook/schemas"
)

// The reader takes only messages with the prefixes that the operator named. Without any,
// it does not ask the server for messages.
func TestReader_TakesOnlyTheMessagesThatTheOperatorNames(t *testing.T) {
	t.Parallel()
	const emit = "SELECT pg_logical_emit_message(true, p, 'x') FROM unnest(ARRAY['walhook', 'walhook.event', 'acme', 'acme.event', 'acme.events', 'Acme', 'acme ']) p"
	for _, c := range []struct {
		name  string
		taken schemas.Messages
		want  []string
	}{
		{"by default", nil, []string{`message walhook "x"`, `message walhook.event "x"`}},
		{"of its own", schemas.Messages{"acme", "acme.event"}, []string{`message acme "x"`, `message acme.event "x"`}},
		{"off", schemas.Messages{}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			w.cfg.Messages = c.taken
			r := w.start(t)
			r.reads(t, patience)
			var asked string
			if err := w.watch.QueryRow(t.Context(), "SELECT query FROM pg_stat_activity WHERE backend_type = 'walsender' AND datname = current_database() AND query LIKE 'START_REPLICATION%'").Scan(&asked); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(asked, "messages 'true'"); got == (c.name == "off") {
				t.Errorf("the server was asked: %s", asked)
			}
			w.exec(t, emit, "INSERT INTO items VALUES (1, 7, 'last')")
			w.store.wait(t, "the last row", func() bool {
				return len(w.store.changes) > 0 && w.store.changes[len(w.store.changes)-1].Kind == schemas.Insert
			})
			wantLines(t, w.lines(), append(c.want, "insert public.items new(id*=1 user_id=7 name=last)"))
		})
	}
}

// An operator may change whether messages count in ordinals while a transaction is stored
// in part: nothing of it is lost or stored twice.
func TestReader_TheSettingOfMessagesChangesInsideATransaction(t *testing.T) {
	t.Parallel()
	const rows = 12_000
	for _, before := range []schemas.Messages{nil, {}} {
		after := schemas.Messages{}
		if before.Off() {
			after = nil
		}
		t.Run(fmt.Sprintf("%d to %d", len(before), len(after)), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			w.cfg.Messages = before
			w.store.hook(func(context.Context, schemas.Batch) error {
				if look(w.store, func() bool { return w.store.checkpoint.Inside() }) {
					return errors.New("the process ends here")
				}
				return nil
			}, nil)
			w.log = quiet
			r := w.start(t)
			w.exec(t, fmt.Sprintf(`DO $$ BEGIN FOR n IN 1..%d LOOP
				INSERT INTO items VALUES (n, 7, 'x'); PERFORM pg_logical_emit_message(true, 'another', 'x'); END LOOP; END $$`, rows))
			w.store.wait(t, "a part", func() bool { return w.store.checkpoint.Inside() })
			_ = r.stop()
			if stored := len(w.store.stored()); stored == 0 || stored >= rows {
				t.Fatalf("%d of %d rows were stored before the setting changed", stored, rows)
			}
			w.store.hook(nil, nil)
			w.cfg.Messages = after
			w.start(t)
			w.store.wait(t, "the rest", func() bool { return len(w.store.changes) >= rows })
			w.exec(t, "INSERT INTO items VALUES (0, 8, 'last')")
			w.store.wait(t, "the last row", func() bool {
				return string(w.store.changes[len(w.store.changes)-1].New[0].Text) == "0"
			})
			for i, change := range w.store.stored()[:rows] {
				if got := string(change.New[0].Text); got != fmt.Sprint(i+1) {
					t.Fatalf("change %d is row %s", i+1, got)
				}
			}
			if n := len(w.store.stored()); n != rows+1 {
				t.Errorf("%d changes were stored, want %d", n, rows+1)
			}
		})
	}
}
