package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walhook/doctor"
	"walhook/internal/carrier"
	"walhook/internal/pgtest"
	"walhook/internal/receiver"
)

// TestConnections_WithoutATokenTakeNoDescriptorOfDeliveries opens more
// connections than the process may have descriptors, from many addresses, each
// with a request that never ends. Deliveries, to a receiver that has to be dialled
// anew for each, go on, and so do the other listener and the operator's calls.
func TestConnections_WithoutATokenTakeNoDescriptorOfDeliveries(t *testing.T) {
	t.Parallel()
	server, err := receiver.Start(receiver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s := newShop(t, 1, server.URL)
	address, metrics := freeAddress(t), freeAddress(t)
	process := startLimited(t, 200, "run", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", s.catalog,
		"--listen", address, "--metrics-listen", metrics, "--allow-cidr", "127.0.0.0/8", "--admin-token", "the operator of the test")
	awaitReady(t, address)
	insert := func(from, to int) {
		t.Helper()
		s.db.Exec(t, fmt.Sprintf(`INSERT INTO item (id, account) SELECT n, 1 FROM generate_series(%d, %d) n`, from, to))
	}
	insert(1, 10)
	eventually(t, 20*time.Second, func() bool { return server.Count() == 10 })

	ctx, stop := context.WithCancel(t.Context())
	for i := range 400 {
		target := address
		if i%4 == 3 {
			target = metrics
		}
		go func() {
			for ctx.Err() == nil {
				dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i%20), byte(i/20+1))}, Timeout: time.Second}
				conn, err := dialer.DialContext(ctx, "tcp", target)
				if err != nil {
					time.Sleep(100 * time.Millisecond)
					continue
				}
				_, _ = conn.Write([]byte("PUT /v2/accounts/7/webhooks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2000\r\n"))
				_, _ = conn.Read(make([]byte, 1)) // until it is closed
				conn.Close()
				time.Sleep(50 * time.Millisecond)
			}
		}()
	}
	defer stop()
	time.Sleep(time.Second)
	for n := range 5 {
		began := time.Now()
		insert(100+100*n, 119+100*n)
		want := 10 + 20*(n+1)
		eventually(t, 20*time.Second, func() bool { return server.Count() >= want })
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("deliveries took %s", took)
		}
		time.Sleep(300 * time.Millisecond)
	}
	stop()
	eventually(t, 20*time.Second, func() bool {
		resp, err := http.Get("http://" + metrics + "/metrics")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	})
	// However long they take on a busy machine: none lacks a descriptor.
	if m := scrape(t, metrics); m.sum("walhook_attempts_total", "outcome", "delivered") != 110 || m.sum("walhook_attempts_total") != 110 {
		t.Errorf("%v attempts for 110 deliveries, %v of them delivered", m.sum("walhook_attempts_total"), m.sum("walhook_attempts_total", "outcome", "delivered"))
	}
	if refused := scrape(t, metrics).sum("walhook_connections_refused_total", "listener", "listen"); refused < 10 {
		t.Errorf("%v connections were refused", refused)
	}
	if !strings.Contains(process.log(), "low limit of open files and sockets") && !strings.Contains(process.log(), "too many connections") {
		t.Error("the log says nothing")
	}
	process.stop(t)
}

// startLimited is startChild under a limit of open files.
func startLimited(t *testing.T, files int, args ...string) *childProcess {
	t.Helper()
	plain := childCommand(t, args...)
	limited := exec.CommandContext(t.Context(), "bash", append([]string{"-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, files), plain.Path}, args...)...)
	limited.Env = plain.Env
	return startCommand(t, limited, args)
}

func TestTLS_TheAPISpeaksHTTPSWithItsOwnCertificate(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, carrier.Tables)
	cert, key := newCertificate(t, "api.example")
	address, metrics := freeAddress(t), freeAddress(t)
	slot := "tls_" + db.Name
	process := startChild(t, "run", "--source", db.URL, "--slot", slot, "--setup", "--listen", address, "--metrics-listen", metrics,
		"--tls-cert", cert, "--tls-key", key, "--admin-token", "the operator of the test")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	eventually(t, 30*time.Second, func() bool {
		resp, err := client.Get("https://" + address + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	if exposed := scrape(t, metrics); exposed.sum("walhook_connections", "listener", "listen") < 0 {
		t.Error("no metric of the listener")
	}
	process.stop(t)
	mustRun(t, "teardown", "--source", db.URL, "--slot", slot, "--outbox")
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
