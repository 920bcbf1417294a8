package endtoend

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// TestDoctor_NamesWhatTheServerLacks goes through what is wrong with a whole
// server, one after the other, from one that was never configured to one that
// is about to give up the slot.
func TestDoctor_NamesWhatTheServerLacks(t *testing.T) {
	t.Parallel()
	settings := healthy()
	settings["wal_level"] = "replica"
	settings["max_wal_size"], settings["min_wal_size"] = "32MB", "32MB"
	p := newPatient(t, pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: settings}))
	p.apart(t)
	p.exec(t, "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()")
	// A segment of 16 MB each, of which almost nothing is written.
	useWAL := func(segments int) {
		for range segments {
			p.exec(t, "SELECT pg_logical_emit_message(false, 'x', 'x'); SELECT pg_switch_wal()")
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T)
		want  string
		flags []string
	}{
		{name: "it does not log enough", want: "source.wal_level"},
		{name: "it allows no slots", want: "source.slots", spoil: func(t *testing.T) {
			p.walhook(t, "teardown")
			p.exec(t, "ALTER SYSTEM SET max_replication_slots = 0")
			p.restart(t)
		}},
		{name: "no slot is free", want: "source.slots", spoil: func(t *testing.T) {
			p.walhook(t, "teardown")
			p.exec(t, "ALTER SYSTEM SET max_replication_slots = 1")
			p.restart(t)
			p.exec(t, "SELECT pg_create_physical_replication_slot('other')")
		}},
		{name: "no WAL sender is free", want: "source.senders", spoil: func(t *testing.T) {
			p.exec(t, "ALTER SYSTEM SET max_wal_senders = 1")
			p.restart(t)
			source, err := url.Parse(p.db.URL)
			if err != nil {
				t.Fatal(err)
			}
			source.RawQuery = "replication=database&" + source.RawQuery
			holder, err := pgconn.Connect(t.Context(), source.String()) // until the server restarts
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = holder.Close(context.Background()) })
		}},
		{name: "slots have no limit", want: "source.wal_limit", spoil: func(t *testing.T) {
			p.exec(t, "ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf()")
		}},
		{name: "nobody reads", want: "source.reader", spoil: func(*testing.T) { useWAL(4) }},
		{name: "the slot nears its limit", want: "source.retained", spoil: func(t *testing.T) {
			p.exec(t, "ALTER SYSTEM SET max_wal_size = '1GB'; ALTER SYSTEM SET max_slot_wal_keep_size = '128MB'; SELECT pg_reload_conf()")
			useWAL(5)
		}},
		{name: "another slot nears it", want: "source.other_slots", spoil: func(t *testing.T) {
			p.exec(t, "SELECT pg_create_physical_replication_slot('abandoned', true)")
			process := startChild(t, append([]string{"run", "--listen", "off"}, p.flags(t, []string{"run"})...)...)
			defer process.stop(t)
			useWAL(5)
			// A slot moves on past a checkpoint's record once what follows is stored.
			p.waitFor(t, "CHECKPOINT; INSERT INTO items SELECT coalesce(max(id), 0) + 1, 7, 'x' FROM items", "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '"+p.settings["slot"]+
				"' AND pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > 40 * 1024 * 1024", 0)
			p.passed(t) // what is stored now waits for no sender
			p.exec(t, "ALTER SYSTEM SET max_slot_wal_keep_size = '120MB'; SELECT pg_reload_conf()")
		}},
		{name: "it does not sync", want: "outbox.durability", spoil: func(t *testing.T) {
			p.exec(t, "ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf()")
		}},
		{name: "a transaction is open", want: "source.transactions", flags: []string{"--old-transaction", "1ms"}, spoil: func(t *testing.T) {
			conn, err := pgx.Connect(t.Context(), p.settings["source"])
			if err == nil {
				_, err = conn.Exec(t.Context(), "BEGIN; SELECT pg_current_xact_id()")
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close(context.Background()) })
		}},
		{name: "a prepared transaction is forgotten", want: "source.prepared", flags: []string{"--old-transaction", "1ms"}, spoil: func(t *testing.T) {
			p.exec(t, "BEGIN; INSERT INTO items VALUES (100); PREPARE TRANSACTION 'it''s forgotten'")
		}},
	} {
		if !t.Run(c.name, func(t *testing.T) {
			if c.spoil != nil {
				c.spoil(t)
			}
			findings := p.examine(t, c.flags...)
			wantBad(t, findings, c.want)
			p.heal(t, findings, c.flags...)
		}) {
			t.Fatalf("what follows stands on it: %s", strings.TrimSpace(c.name))
		}
	}
}
