package endtoend

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
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

	"walhook/internal/carrier"
	"walhook/internal/loopback"
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
	address, metrics := loopback.Address(t), loopback.Address(t)
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
	certPEM, keyPEM := newCertificate(t)
	cert, key := filepath.Join(t.TempDir(), "tls.crt"), filepath.Join(t.TempDir(), "tls.key")
	for file, text := range map[string][]byte{cert: certPEM, key: keyPEM} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address, metrics := loopback.Address(t), loopback.Address(t)
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

// newCertificate is a certificate of this machine, which is its own authority,
// and the key, in PEM.
func newCertificate(t *testing.T) (cert, private []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "walhook test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"api.example"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}
