package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"walhook/cdc/source"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// The source's files are replaced by an earlier copy: the same system and timeline, and
// soon as much WAL as before, with other transactions of the same numbers. What was read
// after the copy is gone, and what rows say of their age means nothing.
func TestGap_TheSourceIsAnEarlierCopyOfItself(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		slot, much bool
	}{
		{"with its slot", true, true},
		{"without slots, as pg_basebackup makes it", false, true},
		{"that begins with a like transaction", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
			w := newGapWorld(t, pgtest.NewDatabase(t, cluster), `
				INSERT INTO users VALUES (7, 'seven', 'https://example.com/7');
				INSERT INTO items SELECT n, 7, 'x' FROM generate_series(1, 20) n`)
			w.exec(t, "UPDATE items SET name = 'before'")
			w.read(t, true)
			data := w.text(t, w.conn, "SELECT current_setting('data_directory')")
			again := func(files func()) {
				t.Helper()
				if err := cluster.Kill(); err != nil {
					t.Fatal(err)
				}
				files()
				if err := cluster.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.conn = w.db.Connect(t)
			}
			backup := filepath.Join(t.TempDir(), "backup")
			again(func() { run(t, "cp", "-a", data, backup) })
			if test.much {
				w.exec(t, "UPDATE items SET name = 'lost' WHERE id <= 5", "INSERT INTO items VALUES (30, 7, 'lost')", "DELETE FROM items WHERE id = 20")
			}
			w.exec(t, "UPDATE items SET name = 'lost' WHERE id = 8")
			w.read(t, true)
			again(func() {
				run(t, "rm", "-rf", data)
				run(t, "cp", "-a", backup, data)
				if !test.slot {
					slots, err := filepath.Glob(filepath.Join(data, "pg_replslot", "*"))
					if err != nil || len(slots) == 0 {
						t.Fatalf("%q, %v", slots, err)
					}
					for _, one := range slots {
						if err := os.RemoveAll(one); err != nil {
							t.Fatal(err)
						}
					}
				}
			})
			for _, sql := range []string{"UPDATE items SET name = 'last' WHERE id = 8", "SELECT pg_logical_emit_message(true, 'mark', 'x')", "UPDATE items SET name = 'after' WHERE id BETWEEN 4 AND 7", "INSERT INTO items VALUES (31, 7, 'after')", "DELETE FROM items WHERE id = 19"} {
				w.exec(t, sql)
			}
			w.exec(t, "CREATE TABLE filler AS SELECT generate_series(1, 20000) n") // the WAL is longer than before
			if err := w.trySetup(t.Context(), t, source.Refuse); err == nil || test.slot && !strings.Contains(err.Error(), "not the one that was read") {
				t.Errorf("setup says %v", err)
			}
			w.setup(t, source.Reconcile)
			if got, want := w.applied(t)["7"], w.rows(t); !maps.Equal(itemsOf(got), want) {
				t.Errorf("receivers have\n%v\nthe source\n%v", itemsOf(got), want)
			}
			if got := w.text(t, w.box, "SELECT other_history FROM walhook.gap ORDER BY id DESC LIMIT 1"); got != "true" {
				t.Error("the gap does not say that it is another history")
			}
		})
	}
}

// A crash of the source and of walhook, after which the slot lags behind what is stored, is
// no restored copy.
func TestGap_ACrashIsNoEarlierCopy(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	w := newGapWorld(t, pgtest.NewDatabase(t, cluster), `
		INSERT INTO users VALUES (7, 'seven', 'https://example.com/7');
		INSERT INTO items SELECT n, 7, 'x' FROM generate_series(1, 20) n`)
	for n := range 12 { // commit records at any place of a page
		w.exec(t, "BEGIN; UPDATE items SET name = 'x' || random(); SAVEPOINT s; UPDATE items SET name = 'y' || random(); COMMIT")
		w.read(t, false)
		if _, err := w.box.Exec(t.Context(), "SELECT 1"); err != nil {
			t.Fatal(err)
		}
		if err := cluster.Kill(); err != nil { // the slot on disk is older
			t.Fatal(err)
		}
		if err := cluster.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.conn = w.db.Connect(t)
		if err := w.trySetup(t.Context(), t, source.Refuse); err != nil {
			t.Fatalf("crash %d: %v", n, err)
		}
	}
}

func itemsOf(records map[string]string) map[string]string {
	items := maps.Clone(records)
	maps.DeleteFunc(items, func(record, _ string) bool { return !strings.HasPrefix(record, "items:") })
	return items
}

func run(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
}
