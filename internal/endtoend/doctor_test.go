package endtoend

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// ailment is one way to set something up wrongly.
type ailment struct {
	name string
	// spoil breaks a patient that is set up and well; before is for one that is
	// not set up yet.
	spoil, before func(t *testing.T, p *patient)
	want          string // the only check that may name it
	oldest        int    // major version that it can happen on; 0 for any
	newest        int    // last major version that it can happen on; 0 for any
	scars         bool   // once it is fixed, the patient is not what it was
}

// sql spoils by statements of a superuser, with the patient's names in it.
func sql(text string) func(*testing.T, *patient) {
	return func(t *testing.T, p *patient) {
		t.Helper()
		p.exec(t, strings.NewReplacer("$role", p.role, "$slot", p.settings["slot"], "$db", p.db.Name).Replace(text))
	}
}

// apart gives the patient an outbox that nothing is done to.
func apart(t *testing.T, p *patient) { p.apart(t) }

func set(name, value string) func(*testing.T, *patient) {
	return func(_ *testing.T, p *patient) { p.settings[name] = value }
}

func ailments() []ailment {
	return []ailment{
		// The role and its rights.
		{name: "the role may not connect", before: apart, spoil: sql("REVOKE CONNECT ON DATABASE $db FROM PUBLIC"), want: "source.reachable"},
		{name: "the role may not log in", before: apart, spoil: sql("ALTER ROLE $role NOLOGIN"), want: "source.reachable"},
		{name: "the role has no connection left", before: apart, spoil: sql("ALTER ROLE $role CONNECTION LIMIT 0"), want: "source.reachable"},
		{name: "the role may not replicate", spoil: sql("ALTER ROLE $role NOREPLICATION"), want: "source.role"},
		{name: "the role may not replicate, before setup", before: sql("ALTER ROLE $role NOREPLICATION"), want: "source.role"},
		{name: "a table may not be read", scars: true, spoil: sql("REVOKE SELECT ON items FROM $role"), want: "source.select"},
		{name: "a schema may not be used", spoil: sql("REVOKE USAGE ON SCHEMA public FROM PUBLIC"), want: "source.select"},
		{name: "row-level security hides rows", spoil: sql("ALTER TABLE items ENABLE ROW LEVEL SECURITY; ALTER TABLE items FORCE ROW LEVEL SECURITY"), want: "source.row_security"},
		{name: "the tables are another's", before: sql("ALTER TABLE items OWNER TO CURRENT_USER; GRANT SELECT ON items TO $role"), want: "source.rights"},

		// The tables.
		{name: "a table was renamed", scars: true, spoil: sql("ALTER TABLE items RENAME TO things"), want: "source.tables"},
		{name: "a table was moved", scars: true, spoil: sql("CREATE SCHEMA other; GRANT ALL ON SCHEMA other TO $role; ALTER TABLE notes SET SCHEMA other"), want: "source.tables"},
		{name: "a table was dropped", scars: true, spoil: sql("DROP TABLE notes"), want: "source.tables"},
		{name: "the account table was renamed", scars: true, spoil: sql("ALTER TABLE users RENAME TO customers"), want: "source.tables"},
		{name: "a table is not logged", scars: true, spoil: sql("ALTER PUBLICATION walhook DROP TABLE notes; ALTER TABLE notes SET UNLOGGED"), want: "source.unlogged"},
		{name: "accounts have no URL", scars: true, spoil: sql("ALTER TABLE users DROP COLUMN web_hook_url"), want: "source.columns"},
		{name: "an owner's column was renamed", scars: true, spoil: sql("ALTER TABLE items RENAME COLUMN user_id TO customer"), want: "source.columns"},
		{name: "the accounts' key was renamed", scars: true, spoil: sql("ALTER TABLE users RENAME COLUMN id TO number"), want: "source.columns"},
		{name: "a field has no column", scars: true, spoil: sql("ALTER TABLE notes DROP COLUMN note"), want: "source.fields"},
		{name: "a table has no key", spoil: sql("ALTER TABLE notes DROP CONSTRAINT notes_pkey"), want: "source.keys"},
		{name: "a key holds a column that is not sent", scars: true, newest: 17, spoil: sql("ALTER TABLE notes DROP CONSTRAINT notes_pkey, ADD COLUMN odd bigint GENERATED ALWAYS AS (id % 2) STORED; ALTER TABLE notes ADD PRIMARY KEY (id, odd)"), want: "source.keys"},
		{name: "a key is a column that is not sent", scars: true, newest: 17, spoil: sql("ALTER TABLE notes DROP CONSTRAINT notes_pkey, ADD COLUMN code text NOT NULL DEFAULT '', ADD COLUMN odd text GENERATED ALWAYS AS (lower(code)) STORED; ALTER TABLE notes ADD PRIMARY KEY (odd)"), want: "source.keys"},
		{name: "a key is not sent, another is", scars: true, newest: 17, spoil: sql("ALTER TABLE notes DROP CONSTRAINT notes_pkey, ADD UNIQUE (id), ADD COLUMN odd text GENERATED ALWAYS AS (note) STORED; ALTER TABLE notes ADD PRIMARY KEY (odd); DELETE FROM notes"), want: "source.keys"},
		{name: "a key is made of what may be null", scars: true, newest: 17, spoil: sql("ALTER TABLE notes DROP COLUMN id, ADD COLUMN id text GENERATED ALWAYS AS (coalesce(note, '')) STORED; ALTER TABLE notes ADD PRIMARY KEY (id)"), want: "source.keys"},

		// The publication.
		{name: "the publication was dropped", spoil: sql("DROP PUBLICATION walhook"), want: "source.publication"},
		{name: "the publication was made anew", spoil: sql("DROP PUBLICATION walhook; CREATE PUBLICATION walhook FOR TABLE users, items, notes, calls WITH (publish_via_partition_root)"), want: "source.publication"},
		{name: "the publication lacks a table", spoil: sql("ALTER PUBLICATION walhook DROP TABLE notes"), want: "source.published"},
		{name: "the publication lacks deletes", spoil: sql("ALTER PUBLICATION walhook SET (publish = 'insert, update')"), want: "source.published"},
		{name: "the publication holds the outbox", spoil: sql("ALTER PUBLICATION walhook ADD TABLE walhook.endpoint"), want: "source.outbox_published"},
		{name: "the publication holds all tables", spoil: sql("DROP PUBLICATION walhook; CREATE PUBLICATION walhook FOR ALL TABLES; ALTER PUBLICATION walhook OWNER TO $role"), want: "source.outbox_published"},
		{name: "a list of columns", oldest: 15, spoil: sql("ALTER PUBLICATION walhook DROP TABLE items; ALTER PUBLICATION walhook ADD TABLE items (id, user_id)"), want: "source.column_lists"},
		{name: "a row filter", oldest: 15, spoil: sql("ALTER PUBLICATION walhook DROP TABLE items; ALTER PUBLICATION walhook ADD TABLE items WHERE (id > 10)"), want: "source.row_filters"},
		// Before the outbox remembered how tables are published: otherwise that would be a gap.
		{name: "partitions one by one", spoil: sql("ALTER PUBLICATION walhook DROP TABLE calls; ALTER PUBLICATION walhook ADD TABLE calls_1, calls_2; UPDATE walhook.source SET visible_published = NULL"), want: "source.partitions"},
		{name: "old rows are their keys", spoil: sql("ALTER TABLE items REPLICA IDENTITY DEFAULT"), want: "source.replica_identity"},
		{name: "old rows are not there", spoil: sql("ALTER TABLE items REPLICA IDENTITY NOTHING"), want: "source.replica_identity"},
		{name: "a new partition", scars: true, spoil: sql("CREATE TABLE calls_3 PARTITION OF calls FOR VALUES FROM (20) TO (30)"), want: "source.replica_identity"},

		// The slot and what is stored.
		{name: "nothing is set up", before: sql(""), want: "source.setup"},
		{name: "another slot's name", scars: true, spoil: set("slot", "other"), want: "source.setup"},
		{name: "another publication's name", scars: true, spoil: set("publication", "other"), want: "source.setup"},
		{name: "the slot was dropped", spoil: sql("SELECT pg_drop_replication_slot('$slot')"), want: "source.slot"},
		{name: "the slot is of another kind", before: sql("SELECT pg_create_logical_replication_slot('$slot', 'test_decoding')"), want: "source.slot"},
		{name: "the slot became one of another kind", spoil: sql("SELECT pg_drop_replication_slot('$slot'); SELECT pg_create_logical_replication_slot('$slot', 'test_decoding')"), want: "source.slot"},
		{name: "a slot, and its outbox is gone", spoil: sql("DROP SCHEMA walhook CASCADE"), want: "source.slot"},
		{name: "the slot was advanced", spoil: sql("SELECT pg_logical_emit_message(true, 'x', 'x'); SELECT pg_replication_slot_advance('$slot', pg_current_wal_lsn())"), want: "source.position"},
		{name: "another database system", spoil: sql("UPDATE walhook.source SET system_id = '1'"), want: "source.system"},
		{name: "a timeline from nowhere", spoil: sql("UPDATE walhook.source SET timeline = 9"), want: "source.system"},
		{name: "the source was restored from a backup", spoil: sql("UPDATE walhook.position SET flush_lsn = 'FFF/0'"), want: "source.system"},
		{name: "another catalog", scars: true, spoil: func(t *testing.T, p *patient) { p.applyCatalog(t, "schemas: {notes: null}") }, want: "source.catalog"},
		{name: "another database", before: apart, spoil: func(t *testing.T, p *patient) {
			other := pgtest.NewDatabase(t, p.db.Cluster)
			other.Exec(t, "GRANT CREATE ON DATABASE "+other.Name+" TO "+p.role+"; GRANT CREATE ON SCHEMA public TO "+p.role+"; SET ROLE "+p.role+";"+patientTables)
			p.settings["source"] = withUser(t, other.URL, p.role, "pw")
		}, want: "source.slot"},

		// Settings.
		{name: "a reader that is gone is not noticed", spoil: sql("ALTER ROLE $role SET wal_sender_timeout = 0"), want: "source.wal_sender_timeout"},
		{name: "a reader is cut off at once", spoil: sql("ALTER DATABASE $db SET wal_sender_timeout = '1s'"), want: "source.wal_sender_timeout"},
		{name: "the role prints dates otherwise", spoil: sql("ALTER ROLE $role SET datestyle = German"), want: "source.text_settings"},
		{name: "the role prints numbers otherwise here", spoil: sql("ALTER ROLE $role IN DATABASE $db SET extra_float_digits = 0"), want: "source.text_settings"},

		// The outbox.
		{name: "the outbox's transactions are read only", before: ownOutbox, spoil: sql("ALTER ROLE $role SET default_transaction_read_only = on"), want: "outbox.settings"},
		{name: "no outbox can be made", before: func(t *testing.T, p *patient) {
			ownOutbox(t, p)
			p.outbox.Exec(t, "REVOKE CREATE ON DATABASE "+p.outbox.Name+" FROM "+p.role)
		}, want: "outbox.rights"},
		{name: "the outbox is another's", spoil: sql("ALTER SCHEMA walhook OWNER TO CURRENT_USER; GRANT USAGE ON SCHEMA walhook TO $role"), want: "outbox.rights"},
		{name: "a table of the outbox is another's", spoil: sql("ALTER TABLE walhook.lane OWNER TO CURRENT_USER"), want: "outbox.rights"},
		{name: "tomorrow's partition is missing", spoil: func(t *testing.T, p *patient) {
			p.exec(t, "DROP TABLE walhook.attempt_"+time.Now().UTC().AddDate(0, 0, 1).Format("20060102"))
		}, want: "outbox.partitions"},
		{name: "the log's partition is missing", spoil: sql("DROP TABLE walhook.event_000000"), want: "outbox.partitions"},
		{name: "a gap is not accepted", spoil: sql("INSERT INTO walhook.gap (from_lsn, reason) VALUES ('0/1', 'the slot was lost')"), want: "outbox.gaps"},
		{name: "a changed catalog waits", spoil: sql("INSERT INTO walhook.catalog (state, fingerprint, content, asked_at, note) " +
			"SELECT 'pending', fingerprint, content, now() - interval '1 hour', 'a transaction runs' FROM walhook.catalog WHERE state = 'in_force'"), want: "outbox.catalog"},
		{name: "a resync stands", spoil: sql("INSERT INTO walhook.resync (endpoint, kind, asked_at) " +
			"SELECT min(id), 'update', now() - interval '1 hour' FROM walhook.endpoint"), want: "outbox.resyncs"},
		{name: "a sender died", spoil: sql("WITH dead AS (INSERT INTO walhook.sender (name, process, lease_until) VALUES ('host/1', '', now() - interval '1 hour') RETURNING id) " +
			"UPDATE walhook.shard SET sender = dead.id FROM dead WHERE shard.id < 5"), want: "outbox.senders"},
		{name: "a shard is missing", spoil: sql("DELETE FROM walhook.shard WHERE id = 31"), want: "outbox.shards"},
		{name: "nobody sends", scars: true, spoil: sql("INSERT INTO walhook.event SELECT 1, id, 1, 'r', 'evt_0000000000000001_1', 'items', 'insert', now(), now(), '{}' FROM walhook.endpoint; " +
			"UPDATE walhook.position SET next_event_id = 2"), want: "outbox.shards"},
		{name: "secrets are stored as they are", before: func(_ *testing.T, p *patient) { delete(p.settings, "secret-key") }, spoil: sql(""), want: "outbox.secrets"},
		{name: "dead rows pile up", spoil: func(t *testing.T, p *patient) {
			sql("ALTER TABLE walhook.owner SET (autovacuum_enabled = off); INSERT INTO walhook.owner SELECT 'items', n, '7' FROM generate_series(1, 25000) n; "+
				"DELETE FROM walhook.owner")(t, p)
			p.waitFor(t, "SELECT 1", "SELECT count(*) FROM pg_stat_user_tables WHERE relname = 'owner' AND n_dead_tup > 20000", 1)
		}, want: "outbox.dead_rows"},

		// Where deliveries go.
		{name: "every address is allowed", scars: true, spoil: set("allow-cidr", "0.0.0.0/0"), want: "egress.guard"},
		{name: "deliveries leave from nowhere", scars: true, spoil: set("egress-address", "192.0.2.1"), want: "egress.address"},
	}
}

// ownOutbox gives a patient an outbox of its own role in another database.
func ownOutbox(t *testing.T, p *patient) {
	t.Helper()
	p.apart(t)
	p.outbox.Exec(t, fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s", p.outbox.Name, p.role))
	p.settings["outbox"] = withUser(t, p.outbox.URL, p.role, "pw")
}

// ward keeps patients that are well again for the next ailment: to prepare one
// takes longer than to heal it.
type ward struct {
	t       *testing.T // which outlives those of the ailments
	cluster *pgcluster.Cluster
	mu      sync.Mutex
	well    []*patient
}

func (w *ward) admit(fresh bool) *patient {
	w.mu.Lock()
	if n := len(w.well); n > 0 && !fresh {
		p := w.well[n-1]
		w.well = w.well[:n-1]
		w.mu.Unlock()
		return p
	}
	w.mu.Unlock()
	return newPatient(w.t, w.cluster)
}

func (w *ward) discharge(p *patient) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.well = append(w.well, p)
}

// TestDoctor_NamesWhatIsWrongAndWhatFixesIt breaks a source that is well in one
// way, on a real server. Doctor names that and nothing else, and what it says
// to do, done to the letter, leaves nothing to be said.
func TestDoctor_NamesWhatIsWrongAndWhatFixesIt(t *testing.T) {
	t.Parallel()
	w := &ward{t: t, cluster: pgtest.NewCluster(t, pgcluster.Options{Settings: healthy()})}
	t.Run("all", func(t *testing.T) { // which ends before the patients do
		for _, a := range ailments() {
			if major := w.cluster.Binaries().Major; a.oldest > major || a.newest != 0 && a.newest < major {
				continue
			}
			t.Run(a.name, func(t *testing.T) {
				t.Parallel()
				p := w.admit(a.before != nil)
				if a.before != nil {
					a.before(t, p)
				}
				if a.spoil != nil {
					if !p.prepared {
						p.setup(t)
					}
					a.spoil(t, p)
				}
				findings := p.examine(t)
				wantBad(t, findings, a.want)
				p.heal(t, findings)
				if a.before == nil && !a.scars {
					w.discharge(p)
				}
			})
		}
	})
}

// TestDoctor_MakesTheChecksThatTheManualLists compares the ids with those of
// docs/REASONS.md: each is explained, and each is made, every time.
func TestDoctor_MakesTheChecksThatTheManualLists(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/REASONS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Checks of doctor\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var listed []string
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); len(cells) == 4 && strings.Contains(cells[1], "`") {
			for _, id := range regexp.MustCompile("`([a-z_.]+)`").FindAllStringSubmatch(cells[1], -1) {
				listed = append(listed, id[1])
			}
		}
	}
	out, err := walhook(t, "doctor", "--json", "--source", "postgres://u@127.0.0.1:1/d")
	said := readFindings(t, out, err)
	if exitCodeOf(err) != exitFault {
		t.Fatalf("doctor of what is not there: %v", err)
	}
	var made []string
	for _, f := range said {
		made = append(made, f.ID)
	}
	slices.Sort(listed)
	slices.Sort(made)
	if !slices.Equal(listed, made) {
		t.Errorf("the manual lists\n%q, doctor makes\n%q", listed, made)
	}
	t.Logf("%d checks", len(made))
	wantBad(t, said, "source.reachable", "outbox.reachable")
}
