package outbox

import (
	"errors"
	"fmt"
	"net/url"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/internal/pgtest"
	"walhook/migrations"
)

func openStore(t *testing.T, url string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{URL: url}, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestMigrate_MayBeRepeated(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	s := openStore(t, db.URL)
	if err := s.CheckMigrated(t.Context()); !errors.Is(err, ErrNotSetUp) {
		t.Errorf("an empty database: %v", err)
	}
	for range 2 {
		if err := Migrate(t.Context(), db.URL); err != nil {
			t.Fatal(err)
		}
		if err := s.CheckMigrated(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if err := Drop(t.Context(), db.URL); err != nil {
			t.Fatal(err)
		}
		if err := s.CheckMigrated(t.Context()); !errors.Is(err, ErrNotSetUp) {
			t.Errorf("after it was dropped: %v", err)
		}
	}
}

func TestMigrate_AnyNumberAtOnce(t *testing.T) {
	t.Parallel()
	for round := range 3 {
		db := pgtest.Database(t)
		done := make(chan error)
		for range 4 {
			go func() { done <- Migrate(t.Context(), db.URL) }()
		}
		for range 4 {
			if err := <-done; err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
	}
}

func TestMigrate_WaitsForAnotherThatHasJustBegun(t *testing.T) {
	t.Parallel()
	w := worldIn(t, pgtest.Database(t))
	other := w.begin(t)
	execTx(t, other, "SELECT pg_advisory_xact_lock($1)", migrateLock)
	execTx(t, other, "CREATE SCHEMA walhook")
	done := make(chan error, 1)
	go func() { done <- Migrate(t.Context(), w.db.URL) }()
	w.blocked(t, "")
	commit(t, other)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMigrate_RefusesANewerOne(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	if err := Migrate(t.Context(), db.URL); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, db.URL)
	db.Exec(t, "UPDATE "+migrations.VersionTable+" SET version = 1000")
	if err := Migrate(t.Context(), db.URL); !errors.Is(err, ErrTooNew) {
		t.Errorf("migrated: %v", err)
	}
	if err := s.CheckMigrated(t.Context()); !errors.Is(err, ErrTooNew) {
		t.Errorf("checked: %v", err)
	}
	db.Exec(t, "UPDATE "+migrations.VersionTable+" SET version = 0")
	if err := s.CheckMigrated(t.Context()); !errors.Is(err, ErrNotSetUp) {
		t.Errorf("an older one: %v", err)
	}
}

// All that the outbox does, its role may do with CONNECT and CREATE on the
// database alone.
func TestOutbox_NeedsNoMoreThanConnectAndCreate(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	role := "plain_" + db.Name
	db.Exec(t, fmt.Sprintf(`
		CREATE ROLE %[1]s LOGIN PASSWORD 'secret' NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT;
		REVOKE ALL ON DATABASE %[2]s FROM PUBLIC;
		REVOKE ALL ON SCHEMA public FROM PUBLIC;
		GRANT CONNECT, CREATE ON DATABASE %[2]s TO %[1]s`, role, db.Name))
	as, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	as.User = url.UserPassword(role, "secret")
	if err := Migrate(t.Context(), as.String()); err != nil {
		t.Fatal(err)
	}
	w := worldIn(t, &pgtest.DB{Cluster: db.Cluster, Name: db.Name, URL: as.String()})
	w.open(t)
	f := newFeedIn(t, w)
	f.commit(t, account(7), dids.Insert(1, 7, "312"))
	s, _ := f.join(t)
	events := f.tail(t, s, TailQuery{Endpoint: 1})
	f.settle(t, s, delivered(events[0]), retried(events[1], 0))
	f.exec(t, "UPDATE walhook.event SET appended_at = appended_at - interval '30 days'")
	if err := f.store.maintainOnce(t.Context()); err != nil {
		t.Error(err)
	}
	if err := Drop(t.Context(), as.String()); err != nil {
		t.Error(err)
	}
}

func TestConfig_ValidateListsEveryFault(t *testing.T) {
	t.Parallel()
	err := Config{Retention: 1, MaxEventBytes: 1, SecretKey: []byte("short")}.Validate()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 4 {
		t.Errorf("faults are %v", err)
	}
	if _, err := Open(t.Context(), Config{}, zap.NewNop(), prometheus.NewRegistry()); err == nil {
		t.Error("opened without a URL")
	}
}
