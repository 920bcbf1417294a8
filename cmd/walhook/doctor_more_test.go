package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"walhook/cdc/source"
	"walhook/doctor"
	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
	"walhook/outbox"
	"walhook/schemas"
	"walhook/schemas/catalog"
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
		} else if text := describe(findings); !strings.Contains(text, c.fix) {
			t.Errorf("%s: doctor does not say %q:\n%s", c.name, c.fix, text)
		}
		c.undo()
	}
	wantBad(t, p.examine(t))

	// A clock is put wrong where it is read: this machine's.
	wrong := doctor.Options{Now: func() time.Time { return time.Now().Add(time.Hour) }}
	nothing := func(context.Context) (schemas.Checkpoint, error) { return schemas.Checkpoint{}, nil }
	source := source.Examine(t.Context(), source.Config{URL: p.settings["source"], Catalog: catalog.Carrier()}, nothing, wrong)
	for _, f := range append(source, outbox.Examine(t.Context(), outbox.Config{URL: p.settings["source"]}, wrong)...) {
		if strings.HasSuffix(f.ID, ".clock") && (f.Status != doctor.Failed || !strings.Contains(f.Evidence, "behind this machine's")) {
			t.Errorf("%s is %s: %s", f.ID, f.Status, f.Evidence)
		}
	}
}

func TestDoctor_NamesVariablesThatAreNoSettings(t *testing.T) {
	t.Setenv("WALHOOK_SLOTT", "x")
	out, _ := walhook(t, "doctor", "--json", "--source", "postgres://u@127.0.0.1:1/d")
	var said checkup
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		t.Fatal(err)
	}
	if f := said.Checks[0]; f.ID != configSettings || f.Status != doctor.Warning || len(f.Fix) != 1 || f.Fix[0].Text != "unset WALHOOK_SLOTT" {
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
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "walhook test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	// The server writes the files: they have to be its own.
	var dir string
	if err := p.db.Connect(t).QueryRow(t.Context(), "SHOW data_directory").Scan(&dir); err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"server.crt": {Type: "CERTIFICATE", Bytes: der}, "server.key": {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		lines := doctor.QuoteLiteral(strings.ReplaceAll(strings.TrimSpace(string(pem.EncodeToMemory(block))), "\n", "|"))
		p.exec(t, "COPY (SELECT unnest(string_to_array("+lines+", '|'))) TO '"+dir+"/"+name+"'")
	}
	p.exec(t, `COPY (SELECT) TO PROGRAM 'chmod 600 server.key'; ALTER SYSTEM SET ssl = on; SELECT pg_reload_conf()`)
	p.waitFor(t, "SELECT 1", "SELECT count(*) FROM pg_settings WHERE name = 'ssl' AND setting = 'on'", 1)
	authority := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
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
