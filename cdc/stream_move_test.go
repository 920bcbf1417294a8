package cdc

import (
	"testing"

	"walhook/internal/pgtest"
)

const dividedUsers = `
	DROP TABLE users;
	CREATE TABLE users (id int, region int, web_hook_url text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
	CREATE TABLE users_1 PARTITION OF users FOR VALUES IN (1);
	CREATE TABLE users_2 (web_hook_url text, region int NOT NULL, id int NOT NULL, PRIMARY KEY (id, region));
	ALTER TABLE users ATTACH PARTITION users_2 FOR VALUES IN (2);
`

// An account whose row moves to another partition does not end.
func TestReader_AnAccountThatMovesToAnotherPartitionIsUpdated(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, publication, identity, old string }{
		{"under the root, FULL", "true", "FULL", "old(id*=7 region*=1 web_hook_url=u)"},
		{"under the root, keys", "true", "DEFAULT", "key(id*=7 region*=1 web_hook_url=?)"},
		{"as partitions, FULL", "false", "FULL", "old(web_hook_url=u region*=1 id*=7)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := unprepared(t, pgtest.Database(t), dividedUsers+"ALTER TABLE users_1 REPLICA IDENTITY "+test.identity+"; ALTER TABLE users_2 REPLICA IDENTITY "+test.identity)
			w.exec(t, "INSERT INTO users VALUES (7, 1, 'u'), (8, 1, 'v'), (9, 1, 'w')",
				"CREATE PUBLICATION walhook FOR TABLE users, items, notes WITH (publish_via_partition_root = "+test.publication+")")
			w.setup(t)
			w.start(t)
			w.exec(t, "UPDATE users SET region = 2 WHERE id = 7",
				"BEGIN; DELETE FROM users WHERE id = 8; INSERT INTO users VALUES (10, 1, 'x'); COMMIT",
				"BEGIN; DELETE FROM users WHERE id = 9; TRUNCATE notes; COMMIT",
				"DELETE FROM users WHERE id = 10")
			w.settle(t)
			lines := w.lines()
			shape := "new(id*=7 region*=2 web_hook_url=u)"
			if test.publication == "false" {
				shape = "new(web_hook_url=u region*=2 id*=7)"
			}
			if len(lines) != 6 || lines[0] != "update public.users "+test.old+" "+shape {
				t.Fatalf("stored %q", lines)
			}
			for i, want := range []string{"update", "delete", "insert", "delete", "truncate", "delete"} {
				if got := lines[i][:len(want)]; got != want {
					t.Errorf("%d: %s, want %s", i, lines[i], want)
				}
			}
			last := w.store.stored()[0].Position
			for _, change := range w.store.stored()[1:] {
				if change.Position.Compare(last) <= 0 {
					t.Errorf("%s after %s", change.Position, last)
				}
				last = change.Position
			}
		})
	}
}
