package pgcluster

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestStandby_HasWhatItsPrimaryCommittedAndTakesOver(t *testing.T) {
	t.Parallel()
	primary := start(t, Options{NoSync: true})
	standby, err := primary.Standby(t.Context(), "second")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = standby.Stop() })
	if !one[bool](t, standby, "SELECT pg_is_in_recovery()") {
		t.Fatal("the standby is none")
	}
	conn, err := pgx.Connect(t.Context(), primary.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, sql := range []string{
		"ALTER SYSTEM SET synchronous_standby_names = second", "SELECT pg_reload_conf()",
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(90 * time.Second); one[string](t, primary, "SELECT coalesce(max(sync_state), '') FROM pg_stat_replication") != "sync"; {
		if time.Now().After(deadline) {
			t.Fatal("the standby is not synchronous")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if _, err := conn.Exec(t.Context(), "CREATE TABLE kept AS SELECT 7 AS n"); err != nil {
		t.Fatal(err)
	}
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := one[int](t, standby, "WITH more AS (SELECT txid_current()) SELECT n FROM kept, more"); n != 7 {
		t.Errorf("the table holds %d", n)
	}
}
