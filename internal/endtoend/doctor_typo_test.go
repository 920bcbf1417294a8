package endtoend

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"walhook/doctor"
	"walhook/internal/pgtest"
)

// TestDoctor_CorrectsATypoInTheFile has the names of tables and columns misspelt in a
// catalog: doctor names the right ones, for the file, and changes no table for it.
func TestDoctor_CorrectsATypoInTheFile(t *testing.T) {
	t.Parallel()
	const right = `account: {table: voip.customer, id: uid, url: callback_url}
schemas:
  dids: {table: voip.dids, owner: customer_id, fields: [id, customer_id, label, number]}
`
	for _, c := range []struct{ name, from, to, want string }{
		{"the account table", "voip.customer", "voip.custmer", `account: {table: voip.customer}`},
		{"a schema's table", "voip.dids", "voip.didz", "table: voip.dids, owner"},
		{"a schema's table, and a field", "voip.dids, owner: customer_id, fields: [id, customer_id, label", "voip.didz, owner: customer_id, fields: [id, customer_id, lable", "table: voip.dids, owner"},
		{"the accounts' id", "id: uid", "id: uidd", "account: {id: uid}"},
		{"the accounts' URL", "url: callback_url", "url: calback_url", "account: {url: callback_url}"},
		{"an owner", "owner: customer_id", "owner: custmer_id", "owner: customer_id"},
		{"a field", "label, number", "lable, number", "did you mean label?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db, outbox := pgtest.NewDatabase(t, pgtest.Database(t).Cluster), pgtest.Database(t)
			db.Exec(t, `CREATE SCHEMA voip; CREATE TABLE voip.customer (uid int PRIMARY KEY, callback_url text, password text, pin text);
				CREATE TABLE voip.dids (id int PRIMARY KEY, customer_id int REFERENCES voip.customer, label text, number text, note text, extra int);
				CREATE TABLE voip.other (id int)`)
			file := filepath.Join(t.TempDir(), "catalog.yaml")
			text := strings.Replace(right, c.from, c.to, 1)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil || text == right {
				t.Fatal(err, text)
			}
			out, err := walhook(t, "doctor", "--json", "--source", db.URL, "--outbox", outbox.URL, "--slot", "typo_"+db.Name, "--catalog", file)
			findings := readFindings(t, out, err)
			var steps []doctor.Step
			for _, f := range findings {
				steps = append(steps, f.Fix...)
			}
			if !slices.ContainsFunc(steps, func(s doctor.Step) bool { return strings.Contains(s.Text+" "+s.Note, c.want) }) {
				t.Errorf("doctor lacks %s:\n%s", c.want, out)
			}
			for _, s := range steps {
				if strings.Contains(s.Text, "ADD COLUMN") || strings.Contains(s.Text, "RENAME") {
					t.Errorf("for a typo doctor changes the carrier's table: %s", s.Text)
				}
			}
		})
	}
}
