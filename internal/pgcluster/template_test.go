package pgcluster

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestTemplate_CopiesAreClustersOfTheirOwn(t *testing.T) {
	t.Parallel()
	template, err := NewTemplate(t.Context(), Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	first := start(t, Options{NoSync: true, Template: template})
	second := start(t, Options{NoSync: true, Template: template, Settings: map[string]string{"cluster_name": "second"}})
	if err := template.Remove(); err != nil {
		t.Fatal(err)
	}
	const identifier = "SELECT system_identifier FROM pg_control_system()"
	if a, b := one[int64](t, first, identifier), one[int64](t, second, identifier); a == b {
		t.Errorf("both have the system identifier %d", a)
	}
	if got := one[string](t, second, "SHOW cluster_name"); got != "second" {
		t.Errorf("the second has the settings of the first: cluster_name is %q", got)
	}
	if _, err := first.CreateDatabase(t.Context(), "own"); err != nil {
		t.Error(err)
	}
	if _, err := second.CreateDatabase(t.Context(), "own"); err != nil {
		t.Error(err)
	}
	if got := one[string](t, first, "SELECT pg_create_logical_replication_slot('x', 'pgoutput')::text"); got == "" {
		t.Error("it has no slots")
	}
	// A crash is recovered from by the identifier in the files of the WAL.
	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := first.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if conn, err := pgx.Connect(t.Context(), first.URL("own")); err != nil {
		t.Error(err)
	} else if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTemplate_OfOtherBinariesIsNotCopied(t *testing.T) {
	t.Parallel()
	template, err := NewTemplate(t.Context(), Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = template.Remove() })
	template.binaries.Dir = "/of/another/version"
	c := start(t, Options{NoSync: true, Template: template})
	if c.password == template.password {
		t.Error("it is a copy")
	}
}
