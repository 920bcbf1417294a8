package endtoend

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"walhook/doctor"
	"walhook/internal/pgtest"
)

// oddTable is a name that ends the line of a comment, and begins one.
const oddTable = "number\nDROP TABLE voip.canary; -- \x1b[2J */"

// oddLine is the name as a statement in one line has it.
const oddLine = `U&"number\000aDROP TABLE voip.canary; -- \001b[2J */"`

// oddTables is a schema of somebody else's, with a table of that name. Of one table the
// replica identity has to change, of the others it may.
func oddTables() string {
	return fmt.Sprintf(`
CREATE SCHEMA voip;
CREATE TABLE voip.canary (id int PRIMARY KEY);
CREATE TABLE voip.customer (id int PRIMARY KEY, web_hook_url text);
CREATE TABLE voip.%[1]s (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES voip.customer);
CREATE TABLE voip.trunk (id int UNIQUE NOT NULL, customer_id int NOT NULL REFERENCES voip.customer);
CREATE TABLE voip.call (id int, day int, customer_id int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE voip.call_1 PARTITION OF voip.call FOR VALUES FROM (0) TO (10);`, quoted(oddTable))
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func oddCatalog(t *testing.T) string {
	t.Helper()
	name, err := json.Marshal("voip." + quoted(oddTable))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "catalog.yaml")
	text := fmt.Sprintf(`
account: {table: voip.customer, id: id, url: web_hook_url}
schemas:
  number: {table: %s, owner: customer_id, fields: [id]}
  trunk: {table: voip.trunk, key: [id], owner: customer_id, fields: [id]}
  call: {table: voip.call, owner: customer_id, fields: [id, day]}
`, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDoctor_NamesWhatADryRunOfSetupNames compares the two, statement for statement and
// in order, and has a DBA run them: afterwards neither asks for anything.
func TestDoctor_NamesWhatADryRunOfSetupNames(t *testing.T) {
	t.Parallel()
	psql := filepath.Join(findPSQL(t), "psql")
	for _, c := range []struct {
		name   string
		before string // what a DBA has done
		want   doctor.Status
		steps  int
	}{
		{name: "nothing is there", want: doctor.Failed, steps: 6},
		{name: "only optional statements are left", want: doctor.Warning, steps: 4, before: "ALTER TABLE voip.trunk REPLICA IDENTITY FULL; " +
			"CREATE PUBLICATION walhook FOR TABLE voip.customer, voip." + quoted(oddTable) + ", voip.trunk, voip.call WITH (publish_via_partition_root = true)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db, outbox := pgtest.NewDatabase(t, pgtest.Database(t).Cluster), pgtest.Database(t)
			role := "reader_" + db.Name
			db.Exec(t, oddTables()+fmt.Sprintf(`CREATE ROLE %[1]s LOGIN REPLICATION PASSWORD 'pw'; GRANT CREATE ON DATABASE %[2]s TO %[1]s;
				GRANT USAGE ON SCHEMA voip TO %[1]s; GRANT SELECT ON ALL TABLES IN SCHEMA voip TO %[1]s;`, role, db.Name)+c.before)
			flags := []string{"--source", withUser(t, db.URL, role, "pw"), "--outbox", outbox.URL, "--slot", "odd_" + db.Name, "--catalog", oddCatalog(t)}
			rights := func() doctor.Finding {
				t.Helper()
				out, err := walhook(t, append([]string{"doctor", "--json"}, flags...)...)
				findings := readFindings(t, out, err)
				return findings[slices.IndexFunc(findings, func(f doctor.Finding) bool { return f.ID == "source.rights" })]
			}
			said, plan := rights(), mustRun(t, append([]string{"setup", "--dry-run"}, flags...)...)
			if said.Status != c.want || len(said.Fix) != c.steps {
				t.Errorf("%s, %d steps, want %s, %d: %s", said.Status, len(said.Fix), c.want, c.steps, said.Evidence)
			}
			var want strings.Builder
			for _, step := range said.Fix {
				fmt.Fprintf(&want, "%s; -- needs %s", strings.ReplaceAll(step.Text, quoted(oddTable), oddLine), step.Needs)
				if step.Note != "" {
					want.WriteString("; " + step.Note)
				}
				want.WriteString("\n")
			}
			_, statements, _ := strings.Cut(plan, "SET search_path = pg_catalog, pg_temp;\n")
			if rest, found := strings.CutPrefix(statements, want.String()); !found || !onlyComments(rest) {
				t.Errorf("doctor names\n%s\nsetup --dry-run prints\n%s", want.String(), plan)
			}

			cmd := exec.CommandContext(t.Context(), psql, "-X", "-v", "ON_ERROR_STOP=1", db.URL)
			cmd.Stdin = strings.NewReader(plan)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("psql: %v\n%s\n%s", err, out, plan)
			}
			db.Exec(t, "SELECT FROM voip.canary")
			if said := rights(); said.Status != doctor.OK {
				t.Errorf("afterwards doctor says %s: %s", said.Status, said.Evidence)
			}
			if plan := mustRun(t, append([]string{"setup", "--dry-run"}, flags...)...); !strings.Contains(plan, "the source needs only the slot") || !onlyComments(plan) {
				t.Errorf("afterwards setup --dry-run prints\n%s", plan)
			}
			mustRun(t, append([]string{"setup"}, flags...)...)
			if said := rights(); said.Status != doctor.OK {
				t.Errorf("after setup doctor says %s: %s", said.Status, said.Evidence)
			}
			mustRun(t, "teardown", "--source", db.URL, "--outbox", outbox.URL, "--slot", flags[5])
		})
	}
}

// onlyComments reports whether SQL has nothing but comments of a line.
func onlyComments(text string) bool {
	for line := range strings.Lines(text) {
		if line != "\n" && !strings.HasPrefix(line, "--") {
			return false
		}
	}
	return true
}

// TestNames_StayInTheirLine has a table's name with a line end in everything that people
// read line by line, or that psql may run: what follows the line end begins no line.
func TestNames_StayInTheirLine(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	// Its updates fail under FULL, so that setup warns; its key is missing, so that check does.
	db.Exec(t, oddTables()+fmt.Sprintf(`
CREATE TABLE voip.%[1]s (id int, customer_id int NOT NULL REFERENCES voip.customer, %[2]s text);
COMMENT ON TABLE voip.%[1]s IS E'a comment\nDROP TABLE voip.canary; --';
ALTER TABLE voip.%[3]s ADD CONSTRAINT %[2]s FOREIGN KEY (id) REFERENCES voip.trunk (id), ADD COLUMN %[2]s int, ADD COLUMN %[4]s text;
CREATE TABLE voip.%[5]s (%[2]s int PRIMARY KEY, customer_id int REFERENCES voip.customer);`,
		quoted("keyless\nDROP TABLE voip.canary; --"), quoted("column\nDROP TABLE voip.canary; --"), quoted(oddTable), quoted("secret\nDROP TABLE voip.canary; --"),
		quoted("log\nDROP TABLE voip.canary; --")))
	flags := []string{"--source", db.URL, "--slot", "lines_" + db.Name}
	catalog, draft := oddCatalog(t), filepath.Join(t.TempDir(), "draft.yaml")
	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	name, err := json.Marshal("voip." + quoted("no\nDROP TABLE voip.canary; --"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(wrong, fmt.Appendf(nil, "account: {table: voip.customer, id: id, url: web_hook_url}\nschemas:\n  no: {table: %s, owner: customer_id, fields: [id]}\n"+
		"  keyless: {table: %s, owner: \"c\\nDROP TABLE voip.canary; --\", fields: [\"f\\nDROP TABLE voip.canary; --\"]}\n",
		name, strings.Replace(string(name), `no\n`, `keyless\n`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	see := func(args ...string) {
		t.Helper()
		stdout, stderr := runWalhook(t, args...)
		if !strings.Contains(stdout+stderr, "DROP TABLE voip.canary") {
			t.Errorf("walhook %s does not print the name:\n%s%s", strings.Join(args[:2], " "), stdout, stderr)
		}
		for line := range strings.Lines(stdout + stderr) {
			if strings.HasPrefix(strings.TrimLeft(line, " "), "DROP TABLE") {
				t.Errorf("walhook %s prints a line of its own:\n%s%s", strings.Join(args[:2], " "), stdout, stderr)
				return
			}
		}
	}
	see(append([]string{"setup", "--dry-run", "--catalog", wrong}, flags...)...)
	see(append([]string{"setup", "--dry-run", "--catalog", catalog}, flags...)...)
	see("catalog", "check", wrong, "--source", db.URL)
	see("catalog", "draft", "--source", db.URL, "--account", "voip.customer")
	mustRun(t, "catalog", "draft", "--source", db.URL, "--account", "voip.customer", "--output", draft)
	mustRun(t, "catalog", "check", draft, "--source", db.URL)
	see("catalog", "diff", catalog, "--from", draft, "--source", db.URL)
	mustRun(t, append([]string{"setup", "--catalog", catalog}, flags...)...)
	db.Exec(t, "ALTER TABLE voip."+quoted(oddTable)+" ADD COLUMN "+quoted("new\nDROP TABLE voip.canary; --")+" int, ADD COLUMN "+quoted("new secret\nDROP TABLE voip.canary; --")+" text")
	db.Exec(t, "DROP TABLE voip."+quoted("log\nDROP TABLE voip.canary; --"))
	see("catalog", "draft", "--source", db.URL, "--update", draft)
	see(append([]string{"teardown", "--dry-run"}, flags...)...)
	see(append([]string{"teardown"}, flags...)...)

	dir := filepath.Join(t.TempDir(), "etc")
	mustRun(t, "init", "--source", db.URL, "--account", "voip.customer", "--dir", dir, "--yes")
	script, err := os.ReadFile(filepath.Join(dir, "walhook.sql"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(script)) {
		if strings.HasPrefix(strings.TrimLeft(line, " "), "DROP TABLE") {
			t.Errorf("init writes\n%s", script)
			break
		}
	}
	if !strings.Contains(string(script), "DROP TABLE") {
		t.Errorf("init does not write the name:\n%s", script)
	}
}
