package endtoend

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"walhook/doctor"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// TestDoctor_SaysWhatNoCommandFixes goes through what takes a person: another
// binary, a key, a machine's clock.
func TestDoctor_SaysWhatNoCommandFixes(t *testing.T) {
	t.Parallel()
	p := newPatient(t, pgtest.NewCluster(t, pgcluster.Options{Settings: healthy()}))
	p.setup(t)
	for _, c := range []struct {
		name        string
		spoil, undo func()
		want        string
		fix         string // part of what it says to do
	}{
		{"a newer walhook migrated it", func() { p.exec(t, "UPDATE walhook.schema_version SET version = version + 1") },
			func() { p.exec(t, "UPDATE walhook.schema_version SET version = version - 1") }, "outbox.migrations", "install the newer walhook"},
		{"another key", func() { p.settings["secret-key"] = strings.Repeat("B", 43) + "=" },
			func() { p.settings["secret-key"] = strings.Repeat("A", 43) + "=" }, "outbox.secrets", "--secret-key=KEY"},
		{"an older walhook migrated it", func() { p.exec(t, "UPDATE walhook.schema_version SET version = version - 1") },
			func() { p.exec(t, "UPDATE walhook.schema_version SET version = version + 1") }, "outbox.migrations", "walhook setup"},
	} {
		c.spoil()
		findings := p.examine(t)
		if got := bad(findings); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: doctor names %q, want %s:\n%s", c.name, got, c.want, describe(findings))
		} else if text := p.says(t); !strings.Contains(text, c.fix) {
			t.Errorf("%s: doctor does not say %q:\n%s", c.name, c.fix, text)
		}
		c.undo()
	}
	wantBad(t, p.examine(t))
}

func TestDoctor_NamesVariablesThatAreNoSettings(t *testing.T) {
	t.Setenv("WALHOOK_SLOTT", "x")
	out, err := walhook(t, "doctor", "--json", "--source", "postgres://u@127.0.0.1:1/d")
	if f := readFindings(t, out, err)[0]; f.ID != "config.settings" || f.Status != doctor.Warning || len(f.Fix) != 1 || f.Fix[0].Text != "unset WALHOOK_SLOTT" {
		t.Errorf("got %+v", f)
	}
}

// TestDoctor_SeesHowTheConnectionIsProtected has a server with a certificate.
func TestDoctor_SeesHowTheConnectionIsProtected(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true})
	p := newPatient(t, cluster)
	authority := serveTLS(t, p)
	for mode, want := range map[string]string{
		"sslmode=disable": "the server is on this machine",
		"sslmode=require": "the server is on this machine", // encrypted, not verified, and not on its way anywhere
		"sslmode=verify-full&sslrootcert=" + authority: "TLS 1.3, with verification of the server's certificate",
	} {
		p.settings["source"] = strings.Replace(withUser(t, p.db.URL, p.role, "pw"), "sslmode=disable", mode, 1)
		for _, f := range p.examine(t) {
			if strings.HasSuffix(f.ID, ".tls") && !strings.Contains(f.Evidence, want) {
				t.Errorf("%s: %s is %q, want %q", mode, f.ID, f.Evidence, want)
			}
		}
	}
}

// serveTLS gives the patient's server a certificate, and answers its file.
func serveTLS(t *testing.T, p *patient) string {
	t.Helper()
	cert, key := newCertificate(t)
	// The server writes the files: they have to be its own.
	var dir string
	if err := p.db.Connect(t).QueryRow(t.Context(), "SHOW data_directory").Scan(&dir); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"server.crt": cert, "server.key": key} {
		lines := doctor.QuoteLiteral(strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "|"))
		p.exec(t, "COPY (SELECT unnest(string_to_array("+lines+", '|'))) TO '"+dir+"/"+name+"'")
	}
	p.exec(t, `COPY (SELECT) TO PROGRAM 'chmod 600 server.key'; ALTER SYSTEM SET ssl = on; SELECT pg_reload_conf()`)
	p.waitFor(t, "SELECT 1", "SELECT count(*) FROM pg_settings WHERE name = 'ssl' AND setting = 'on'", 1)
	authority := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(authority, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	return authority
}

// TestDoctor_KeepsTheSlotThroughAFailover has a slot that standbys do not keep.
func TestDoctor_KeepsTheSlotThroughAFailover(t *testing.T) {
	t.Parallel()
	cluster := pgtest.NewCluster(t, pgcluster.Options{Settings: healthy()})
	if cluster.Binaries().Major < 17 {
		return // it came with 17; the other versions' run has it
	}
	p := newPatient(t, cluster)
	p.setup(t)
	replicate := func(failover string) {
		config, err := pgconn.ParseConfig(p.db.URL)
		if err != nil {
			t.Fatal(err)
		}
		config.RuntimeParams["replication"] = "database"
		conn, err := pgconn.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if _, err := conn.Exec(t.Context(), failover).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	replicate(`ALTER_REPLICATION_SLOT "` + p.settings["slot"] + `" ( FAILOVER false )`)
	findings := p.examine(t)
	wantBad(t, findings, "source.failover")
	for _, f := range findings {
		if f.Bad() {
			_, command, _ := strings.Cut(f.Fix[0].Text, "-c '")
			replicate(strings.TrimSuffix(command, "'"))
		}
	}
	wantBad(t, p.examine(t))
}
