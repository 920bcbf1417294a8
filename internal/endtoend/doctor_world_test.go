package endtoend

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"walhook/doctor"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// patientCatalog has a record of each kind of owner, and a partitioned one.
const patientCatalog = `
account: {table: public.users, id: id, url: web_hook_url}
schemas:
  items: {table: public.items, owner: user_id, fields: [id, user_id, name]}
  notes: {table: public.notes, owner: {column: item_id, schema: items}, fields: [id, item_id, note]}
  calls: {table: public.calls, owner: user_id, fields: [id, user_id, day]}
`

const patientTables = `
CREATE TABLE users (id int PRIMARY KEY, web_hook_url text);
CREATE TABLE items (id int PRIMARY KEY, user_id int, name text);
CREATE TABLE notes (id int PRIMARY KEY, item_id int, note text);
CREATE TABLE calls (id int, user_id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE calls_1 PARTITION OF calls FOR VALUES FROM (0) TO (10);
CREATE TABLE calls_2 PARTITION OF calls FOR VALUES FROM (10) TO (20);
INSERT INTO users VALUES (7, 'http://127.0.0.1:61009/');
`

// healthy are settings of a server under which nothing is left to be said.
func healthy() map[string]string {
	return map[string]string{"max_slot_wal_keep_size": "10GB"}
}

// patient is a source with an outbox, whose role owns the tables and is no
// superuser.
type patient struct {
	db       *pgtest.DB
	outbox   *pgtest.DB // the source's, unless apart says otherwise
	role     string
	settings map[string]string // as flags
	catalog  string            // file
	prepared bool
	help     map[string]string // by command
}

// newPatient is a source that is not prepared.
func newPatient(t *testing.T, cluster *pgcluster.Cluster) *patient {
	t.Helper()
	db := pgtest.NewDatabase(t, cluster)
	p := &patient{db: db, outbox: db, role: "doctor_" + db.Name, catalog: filepath.Join(t.TempDir(), "catalog.yaml")}
	p.exec(t, fmt.Sprintf("CREATE ROLE %[1]s LOGIN REPLICATION PASSWORD 'pw'; GRANT CREATE ON DATABASE %[2]s TO %[1]s; GRANT CREATE ON SCHEMA public TO %[1]s; SET ROLE %[1]s;"+
		patientTables+"RESET ROLE", p.role, db.Name))
	if err := os.WriteFile(p.catalog, []byte(patientCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	p.settings = map[string]string{"source": withUser(t, db.URL, p.role, "pw"), "slot": "slot_" + db.Name, "catalog": p.catalog,
		"secret-key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "allow-cidr": "127.0.0.0/8"}
	return p
}

// apart gives the patient an outbox in a database of its own, of a role that
// nothing is done to.
func (p *patient) apart(t *testing.T) {
	t.Helper()
	p.outbox = pgtest.NewDatabase(t, p.db.Cluster)
	p.settings["outbox"] = p.outbox.URL
}

// exec runs statements as a superuser, each by itself, in one session.
func (p *patient) exec(t *testing.T, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for statement := range strings.SplitSeq(sql, "; ") {
		if statement == "" {
			continue
		}
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// flags are the settings that a command has: those that its help lists.
func (p *patient) flags(t *testing.T, command []string) []string {
	t.Helper()
	if i := slices.IndexFunc(command, func(word string) bool { return strings.HasPrefix(word, "-") }); i >= 0 {
		command = command[:i]
	}
	name := strings.Join(command, " ")
	help := p.help[name]
	if help == "" {
		if p.help == nil {
			p.help = map[string]string{}
		}
		help = mustRun(t, append(slices.Clone(command), "--help")...)
		p.help[name] = help
	}
	var flags []string
	for name, value := range p.settings {
		if strings.Contains(help, "\n      --"+name+" ") {
			flags = append(flags, "--"+name+"="+value)
		}
	}
	return flags
}

func (p *patient) setup(t *testing.T) {
	t.Helper()
	p.walhook(t, "setup")
	p.prepared = true
}

// walhook runs a command with the patient's settings.
func (p *patient) walhook(t *testing.T, words ...string) {
	t.Helper()
	if out, err := walhook(t, append(words, p.flags(t, words)...)...); err != nil {
		t.Fatalf("walhook %s: %v\n%s", strings.Join(words, " "), err, out)
	}
}

// examine is what doctor says, and what its exit status is.
func (p *patient) examine(t *testing.T, flags ...string) []doctor.Finding {
	t.Helper()
	out, err := walhook(t, append(append([]string{"doctor", "--json"}, p.flags(t, []string{"doctor"})...), flags...)...)
	said := readFindings(t, out, err)
	want := exitOK
	if slices.ContainsFunc(said, func(f doctor.Finding) bool { return f.Status == doctor.Failed }) {
		want = exitFault
	}
	if got := exitCodeOf(err); got != want {
		t.Errorf("exit status %d, want %d: %v", got, want, err)
	}
	if strings.Contains(out, "pw@") || strings.Contains(out, ":pw") {
		t.Errorf("a password is shown:\n%s", out)
	}
	return said
}

// readFindings reads what doctor --json printed. err is how it ended.
func readFindings(t *testing.T, out string, err error) []doctor.Finding {
	t.Helper()
	var said struct{ Checks []doctor.Finding }
	if jsonErr := json.Unmarshal([]byte(out), &said); jsonErr != nil {
		t.Fatalf("doctor: %v, %v:\n%s", err, jsonErr, out)
	}
	return said.Checks
}

// says is what doctor prints for people.
func (p *patient) says(t *testing.T) string {
	t.Helper()
	return doctorSays(t, p.flags(t, []string{"doctor"})...)
}

// bad are the findings that are not ok, by id.
func bad(findings []doctor.Finding) (ids []string) {
	for _, f := range findings {
		if f.Bad() {
			ids = append(ids, f.ID)
		}
	}
	return ids
}

// describe tells, for people, of findings that are not ok.
func describe(findings []doctor.Finding) string {
	var text strings.Builder
	for _, f := range findings {
		if f.Status != doctor.OK {
			fmt.Fprintf(&text, "%s %s: %s\n", f.Status, f.ID, f.Evidence)
		}
		for _, step := range f.Fix {
			fmt.Fprintf(&text, "\t%s %s: %s\n", step.On, step.Kind, step.Text)
		}
	}
	return text.String()
}

// wantBad fails unless exactly these checks found something.
func wantBad(t *testing.T, findings []doctor.Finding, want ...string) {
	t.Helper()
	if got := bad(findings); !slices.Equal(got, want) {
		t.Fatalf("doctor names %q, want %q:\n%s", got, want, describe(findings))
	}
}

// rounds is how often doctor may be asked again until nothing is left: what is
// fixed lets the next thing be seen.
const rounds = 4

// heal does what doctor says, to the letter, until it finds nothing. What it
// named at first must be fixed at once.
func (p *patient) heal(t *testing.T, findings []doctor.Finding, flags ...string) {
	t.Helper()
	named := bad(findings)
	for end, round := time.Now().Add(patience), 0; round < rounds; round++ {
		for _, f := range findings {
			if f.Bad() && len(f.Fix) == 0 {
				t.Fatalf("doctor says of no remedy of %s", f.ID)
			}
			for _, step := range f.Fix {
				p.apply(t, f.ID, step)
			}
		}
		findings = p.examine(t, flags...)
		still := slices.DeleteFunc(bad(findings), func(id string) bool { return !slices.Contains(named, id) })
		// A key comes first, then the secrets under it.
		if len(still) > 0 && !slices.Equal(still, []string{"outbox.secrets"}) && !slices.Equal(still, []string{"outbox.dead_rows"}) {
			t.Fatalf("what doctor says does not fix %q:\n%s", still, describe(findings))
		}
		// A vacuum leaves the rows that others may see: an ANALYZE that runs, and whoever
		// makes a slot on this server for another test. It is repeated.
		if slices.Equal(still, []string{"outbox.dead_rows"}) && time.Now().Before(end) {
			round = -1
			linger(t.Context(), 100*time.Millisecond)
		}
		if len(bad(findings)) == 0 {
			if skipped := slices.IndexFunc(findings, func(f doctor.Finding) bool { return f.Status == doctor.Skipped }); skipped >= 0 {
				t.Errorf("%s is still skipped: %s", findings[skipped].ID, findings[skipped].Evidence)
			}
			return
		}
	}
	t.Fatalf("still not well:\n%s", describe(findings))
}

// apply does one step as its text says.
func (p *patient) apply(t *testing.T, id string, step doctor.Step) {
	t.Helper()
	t.Logf("%s: %s %s", id, step.Kind, step.Text)
	if strings.Contains(step.Text, "RENAME") {
		t.Errorf("%s renames what is the carrier's: %s", id, step.Text)
	}
	switch step.Kind {
	case doctor.SQL:
		p.applySQL(t, step)
	case doctor.Command:
		words := strings.Fields(step.Text)
		if words[0] != "walhook" {
			t.Fatalf("not a command of walhook: %s", step.Text)
		}
		if words[1] == "run" {
			p.runUntilWell(t, id, words[1:])
		} else {
			p.walhook(t, words[1:]...)
		}
	case doctor.Setting:
		name, value, _ := strings.Cut(strings.TrimPrefix(step.Text, "--"), "=")
		text, err := exec.CommandContext(t.Context(), "sh", "-c", `printf %s "`+value+`"`).Output()
		if err != nil {
			t.Fatal(err)
		}
		p.settings[name] = string(text)
	case doctor.Address:
		p.applyAddress(t, step)
	case doctor.Catalog:
		p.applyCatalog(t, step.Text)
	default:
		t.Fatalf("cannot be done here: %s", step.Text)
	}
}

func (p *patient) applySQL(t *testing.T, step doctor.Step) {
	t.Helper()
	address := map[string]string{"source": p.db.URL, "outbox": p.outbox.URL}[step.On]
	if step.Needs == "" { // then walhook's own role can do it
		address = p.settings["source"]
		if own, ok := p.settings["outbox"]; ok && step.On == "outbox" {
			address = own
		}
	}
	conn, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for statement := range strings.SplitSeq(step.Text, "; ") {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if step.Restart {
		p.restart(t)
	}
	if table, vacuumed := strings.CutPrefix(step.Text, "VACUUM walhook."); vacuumed { // up to 14 statistics come after the fact
		p.waitFor(t, "SELECT 1", "SELECT count(*) FROM pg_stat_user_tables WHERE relname = '"+table+"' AND last_vacuum IS NOT NULL", 1)
	}
}

func (p *patient) applyAddress(t *testing.T, step doctor.Step) {
	t.Helper()
	address, err := url.Parse(p.settings[step.On])
	if err != nil {
		t.Fatal(err)
	}
	name, value, _ := strings.Cut(step.Text, "=")
	if name == "dbname" {
		address.Path = "/" + value
	} else {
		query := address.Query()
		query.Set(name, value)
		address.RawQuery = query.Encode()
	}
	p.settings[step.On] = address.String()
}

// applyCatalog puts an entry in the place of its like; null takes it out.
func (p *patient) applyCatalog(t *testing.T, entry string) {
	t.Helper()
	var catalog, change map[string]any
	text, err := os.ReadFile(p.catalog)
	if err == nil {
		err = yaml.Unmarshal(text, &catalog)
	}
	if err == nil {
		err = yaml.Unmarshal([]byte(entry), &change)
	}
	if err != nil {
		t.Fatal(err)
	}
	for part, entries := range change {
		for name, value := range entries.(map[string]any) {
			if value == nil {
				delete(catalog[part].(map[string]any), name)
			} else {
				catalog[part].(map[string]any)[name] = value
			}
		}
	}
	if text, err = yaml.Marshal(catalog); err == nil {
		err = os.WriteFile(p.catalog, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// runUntilWell starts walhook as doctor says and stops it once the check is ok.
func (p *patient) runUntilWell(t *testing.T, id string, words []string) {
	t.Helper()
	process := startChild(t, append(append(words, p.flags(t, words)...), "--listen", "off")...)
	defer process.stop(t)
	for deadline := time.Now().Add(patience); slices.Contains(bad(p.examine(t)), id); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not get well while 'walhook %s' runs", id, strings.Join(words, " "))
		}
	}
	if id == "source.reader" { // it is well once somebody reads, and stays so once what waited is read
		p.waitFor(t, "SELECT 1", "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '"+p.settings["slot"]+
			"' AND pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) > 1024 * 1024", 0)
	}
}

// passed waits until the sender has stored that it has read all events.
func (p *patient) passed(t *testing.T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.settings["outbox"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	eventually(t, patience, func() (passed bool) {
		const sql = "SELECT NOT EXISTS (SELECT FROM walhook.event e JOIN walhook.shard s ON s.id = e.endpoint % 32 WHERE e.id > s.tail)"
		if err := conn.QueryRow(t.Context(), sql).Scan(&passed); err != nil {
			t.Fatal(err)
		}
		return passed
	})
}

func (p *patient) restart(t *testing.T) {
	t.Helper()
	if err := p.db.Cluster.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// waitFor polls until a count on the source is as wanted, and nudges it on.
func (p *patient) waitFor(t *testing.T, nudge, count string, want int) {
	t.Helper()
	conn := p.db.Connect(t)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var n int
		if _, err := conn.Exec(t.Context(), nudge); err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(t.Context(), count).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d, want %d", count, n, want)
		}
	}
}
