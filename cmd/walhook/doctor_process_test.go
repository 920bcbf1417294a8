package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walhook/doctor"
	"walhook/sender/deliver"
)

func TestDoctor_SaysWhatTheProcessMayOpenAndUntilWhenItsCertificateHolds(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for have, want := range map[uint64]doctor.Status{0: doctor.OK, 200: doctor.Failed, 1024: doctor.Warning, 65536: doctor.OK} {
		r := doctor.NewReport(configDescriptors)
		examineDescriptors(have, r)
		f := r.Findings()[0]
		if f.Status != want || have > 0 && (!strings.Contains(f.Evidence, fmt.Sprint(have)) || !strings.Contains(f.Evidence, fmt.Sprint(neededDescriptors))) {
			t.Errorf("%d: %s %s, want %s with both numbers", have, f.Status, f.Evidence, want)
		}
	}
	otherCert, _ := newCertificate(t, "other.example")
	for name, c := range map[string]struct {
		until  time.Duration
		change func(*settings)
		want   doctor.Status
	}{
		"begins later":  {100 * 24 * time.Hour, nil, doctor.Failed}, // it begins in 98 days
		"ends soon":     {24 * time.Hour, nil, doctor.Warning},
		"has ended":     {-time.Hour, nil, doctor.Failed},
		"another's key": {24 * time.Hour, func(s *settings) { s.TLSCert = otherCert }, doctor.Failed},
		"no file":       {24 * time.Hour, func(s *settings) { s.TLSKey += ".none" }, doctor.Failed},
		"none":          {0, func(s *settings) { *s = settings{} }, doctor.OK},
	} {
		var s settings
		s.TLSCert, s.TLSKey = newCertificateUntil(t, "api.example", now.Add(c.until))
		if c.change != nil {
			c.change(&s)
		}
		r := doctor.NewReport(configCertificate)
		examineCertificate(s, now, r)
		if f := r.Findings()[0]; f.Status != c.want {
			t.Errorf("%s: %s %s", name, f.Status, f.Evidence)
		}
	}
}

// newCertificate makes a certificate and its key, in files, that hold for a day.
func newCertificate(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	return newCertificateUntil(t, name, time.Now().Add(24*time.Hour))
}

func newCertificateUntil(t *testing.T, name string, until time.Time) (certFile, keyFile string) {
	t.Helper()
	return newCertificateFrom(t, name, until.Add(-48*time.Hour), until)
}

func newCertificateFrom(t *testing.T, name string, from, until time.Time) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// together is a file that holds what others do.
func together(t *testing.T, files ...string) string {
	t.Helper()
	var all []byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	}
	path := filepath.Join(t.TempDir(), "authorities.pem")
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A client certificate that cannot be used is a failure for each host that it is for.
func TestDoctor_SaysWhatIsWrongWithClientCertificates(t *testing.T) {
	now := time.Now()
	goodCert, goodKey := newCertificateFrom(t, "good", now.Add(-time.Hour), now.Add(40*24*time.Hour))
	oldCert, oldKey := newCertificateUntil(t, "old", now.Add(-time.Hour))
	soonCert, soonKey := newCertificateUntil(t, "soon", now.Add(24*time.Hour))
	for _, c := range []struct {
		name string
		s    settings
		want doctor.Status
		says string
	}{
		{"none", settings{}, doctor.OK, "none"},
		{"good", settings{ClientCert: goodCert, ClientKey: goodKey, CAFile: goodCert}, doctor.OK, "all other hosts"},
		{"expired", settings{ClientCert: oldCert, ClientKey: oldKey}, doctor.Failed, "expired at"},
		{"another's key", settings{ClientCert: goodCert, ClientKey: oldKey}, doctor.Failed, "private key does not match"},
		{"one host's ends soon", settings{ClientCert: goodCert, ClientKey: goodKey, ClientCerts: []deliver.ClientCertificate{{Host: "*.bank.example", Cert: soonCert, Key: soonKey}}},
			doctor.Warning, "for *.bank.example expires at"},
		{"an authority's ends soon", settings{CAFile: together(t, goodCert, soonCert)}, doctor.Warning, "expires soon"},
		{"an authority's has ended", settings{CAFile: together(t, soonCert, goodCert, oldCert)}, doctor.Warning, "1 of 3 authorities have expired"},
		{"every authority's has ended", settings{CAFile: together(t, oldCert, oldCert)}, doctor.Failed, "every authority in it has expired"},
		{"no authorities", settings{CAFile: goodKey}, doctor.Failed, "no certificate in PEM"},
		{"no file", settings{CAFile: goodKey + ".none"}, doctor.Failed, "no such file"},
	} {
		r := doctor.NewReport(configClientCertificate)
		examineClientCertificates(c.s, now, r)
		if f := r.Findings()[0]; f.Status != c.want || !strings.Contains(f.Evidence, c.says) {
			t.Errorf("%s: %v %s, want %v with %q", c.name, f.Status, f.Evidence, c.want, c.says)
		}
	}
}

// A fix of a certificate is a command that shows what is wrong, and the files to replace:
// the setting is in force already.
func TestDoctor_SaysHowToFixACertificate(t *testing.T) {
	now := time.Now()
	goodCert, goodKey := newCertificateFrom(t, "good", now.Add(-time.Hour), now.Add(40*24*time.Hour))
	oldCert, oldKey := newCertificateUntil(t, "old", now.Add(-time.Hour))
	odd := filepath.Join(t.TempDir(), "it's $(false) odd.crt")
	text, err := os.ReadFile(oldCert)
	if err == nil {
		err = os.WriteFile(odd, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := "notAfter=" + now.Add(-time.Hour).UTC().Format("Jan _2 15:04:05 2006 GMT")
	for name, c := range map[string]struct {
		cert, key, ca string
		shows         string   // what the command prints
		says          []string // of its note
	}{
		"expired":       {cert: oldCert, key: oldKey, shows: ended, says: []string{"replace " + oldCert + ", and " + oldKey}},
		"an odd name":   {cert: odd, key: oldKey, shows: ended, says: []string{"replace " + odd}},
		"another's key": {cert: goodCert, key: oldKey, shows: "-----BEGIN PUBLIC KEY-----", says: []string{"into " + goodCert + ",", "into " + oldKey}},
		"no key":        {cert: goodCert, key: goodKey + ".none", shows: goodCert + "\n", says: []string{"reads " + goodCert + " and " + goodKey + ".none: "}},
		"authority":     {ca: oldCert, shows: now.Add(-time.Hour).UTC().Format("Not After : Jan _2 15:04:05 2006 GMT"), says: []string{"into " + oldCert + ":"}},
		"no authority":  {ca: goodKey, shows: "0\n", says: []string{"into " + goodKey + " "}},
		"no file":       {ca: goodKey + ".none", shows: goodKey + ".none", says: []string{"reads " + goodKey + ".none: "}},
	} {
		s := settings{ClientCert: c.cert, ClientKey: c.key, CAFile: c.ca}
		s.TLSCert, s.TLSKey = c.cert, c.key
		r := doctor.NewReport(configCertificate, configClientCertificate)
		examineCertificate(s, now, r)
		examineClientCertificates(s, now, r)
		checked := 0
		for _, f := range r.Findings() {
			if f.Status == doctor.OK {
				continue
			}
			checked++
			if f.Status != doctor.Failed || len(f.Fix) != 1 || f.Fix[0].Kind != doctor.Shell {
				t.Errorf("%s: %+v", name, f)
				continue
			}
			step := f.Fix[0]
			for _, part := range append(c.says, "a running walhook reads changed files within seconds, without a restart") {
				if !strings.Contains(step.Note, part) {
					t.Errorf("%s: no %q in %q", name, part, step.Note)
				}
			}
			if _, err := exec.LookPath("openssl"); err != nil && strings.HasPrefix(step.Text, "openssl") {
				continue
			}
			shown, _ := exec.Command("sh", "-c", step.Text).CombinedOutput() // it fails where it shows an error
			if !strings.Contains(string(shown), c.shows) {
				t.Errorf("%s: %s shows %q, want %q", name, step.Text, shown, c.shows)
			}
		}
		if want := map[bool]int{true: 2, false: 1}[c.ca == ""]; checked != want {
			t.Errorf("%s: %d findings, want %d: %+v", name, checked, want, r.Findings())
		}
	}
}

func TestSettings_ClientCertificatesOfHosts(t *testing.T) {
	var s settings
	if err := parseClientCerts(&s, "*.bank.example=/a.crt:/a.key, hooks.example=/b.crt:/b.key"); err != nil || len(s.ClientCerts) != 2 ||
		s.ClientCerts[0] != (deliver.ClientCertificate{Host: "*.bank.example", Cert: "/a.crt", Key: "/a.key"}) {
		t.Errorf("%+v, %v", s.ClientCerts, err)
	}
	if err := parseClientCerts(&s, "*.Bücher.test=/c.crt:/c.key"); err != nil || len(s.ClientCerts) != 3 || s.ClientCerts[2].Host != "*.xn--bcher-kva.test" {
		t.Errorf("a name outside ASCII: %+v, %v", s.ClientCerts, err)
	}
	if err := parseClientCerts(&settings{}, "localhost:44999=/a.crt:/a.key"); err == nil || !strings.Contains(err.Error(), "without scheme, port and path") || !strings.HasSuffix(err.Error(), "here localhost") {
		t.Errorf("a host with a port: %v", err)
	}
	for _, wrong := range []string{"localhost:44999=/a.crt:/a.key", "a b=/a.crt:/a.key", "a.example/x=/a.crt:/a.key", "/a.crt:/a.key", "=/a.crt:/a.key", "a.example=/a.crt", "https://a.example=/a.crt:/a.key", "a.example:443"} {
		if err := parseClientCerts(&settings{}, wrong); err == nil || !strings.Contains(err.Error(), "want host=certificate:key") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
