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
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walhook/doctor"
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
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: until.Add(-48 * time.Hour), NotAfter: until}
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
