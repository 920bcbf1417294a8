package endtoend

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"walhook/internal/pgtest"
)

// TestSetup_ADryRunSufficesForARoleThatMayNothing has a DBA run once what the dry run
// prints for a role without any right: afterwards setup works.
func TestSetup_ADryRunSufficesForARoleThatMayNothing(t *testing.T) {
	t.Parallel()
	psql := filepath.Join(findPSQL(t), "psql")
	for name, before := range map[string]string{
		"no right at all":        "",
		"no right to replicate":  "GRANT USAGE ON SCHEMA voip TO %[1]s; GRANT SELECT ON ALL TABLES IN SCHEMA voip TO %[1]s",
		"no right to read":       "ALTER ROLE %[1]s REPLICATION",
		"no right to one table":  "ALTER ROLE %[1]s REPLICATION; GRANT USAGE ON SCHEMA voip TO %[1]s; GRANT SELECT ON ALL TABLES IN SCHEMA voip TO %[1]s; REVOKE SELECT ON voip.trunk FROM %[1]s",
		"no right to the schema": "ALTER ROLE %[1]s REPLICATION; GRANT SELECT ON ALL TABLES IN SCHEMA voip TO %[1]s",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, outbox := pgtest.NewDatabase(t, pgtest.Database(t).Cluster), pgtest.Database(t)
			role := "nobody_" + db.Name
			db.Exec(t, oddTables()+fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'pw';", role))
			if before != "" {
				db.Exec(t, fmt.Sprintf(before, role))
			}
			flags := []string{"--source", withUser(t, db.URL, role, "pw"), "--outbox", outbox.URL, "--slot", "dry_" + db.Name, "--catalog", oddCatalog(t)}
			plan := mustRun(t, append([]string{"setup", "--dry-run"}, flags...)...)
			cmd := exec.CommandContext(t.Context(), psql, "-X", "-v", "ON_ERROR_STOP=1", db.URL)
			cmd.Stdin = strings.NewReader(plan)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("psql: %v\n%s\n%s", err, out, plan)
			}
			db.Exec(t, "SELECT FROM voip.canary")
			if again := mustRun(t, append([]string{"setup", "--dry-run"}, flags...)...); !strings.Contains(again, "the source needs only the slot") {
				t.Errorf("afterwards setup --dry-run prints\n%s\nfirst it printed\n%s", again, plan)
			}
			mustRun(t, append([]string{"setup"}, flags...)...)
			mustRun(t, "teardown", "--source", db.URL, "--outbox", outbox.URL, "--slot", flags[5])
		})
	}
}
