package endtoend

import (
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
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// privateCA is an authority that no system knows.
type privateCA struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newPrivateCA(t *testing.T) *privateCA {
	t.Helper()
	ca := &privateCA{}
	cert, key := ca.issue(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "private"}})
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	ca.certificate, ca.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	return ca
}

// issue completes a template and signs it; the authority's own one by itself. Both are PEM.
func (ca *privateCA) issue(t *testing.T, template *x509.Certificate) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	template.NotBefore = template.NotAfter.Add(-24 * time.Hour)
	parent, signer := ca.certificate, ca.key
	if parent == nil {
		parent, signer = template, private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, private.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func (ca *privateCA) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.certificate.Raw})
}

// serves is the TLS of a server that wants certificates of the authority for.
func (ca *privateCA) serves(t *testing.T, template *x509.Certificate, of *privateCA) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(ca.issue(t, template))
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(of.certificate)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
}

// A server with TLS, whose authority only --ca-file knows, and that wants a certificate of
// walhook. What is wrong with a certificate is said with what to do, also where walhook had
// connected before; and certificates are read again, without a restart.
func TestNATSFeed_OverTLS(t *testing.T) {
	t.Parallel()
	ca, other := newPrivateCA(t), newPrivateCA(t)
	folder := t.TempDir()
	path := func(name string) string { return filepath.Join(folder, name) }
	present := func(by *privateCA) {
		t.Helper()
		cert, key := by.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "walhook"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		writeFile(t, path("client.pem"), string(cert))
		writeFile(t, path("client.key"), string(key))
	}
	here := func() *x509.Certificate { return &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}} }
	writeFile(t, path("ca.pem"), string(ca.pem()))
	present(ca)
	c := newNATSCluster(t, 1, func(o *server.Options) { o.TLSConfig, o.TLSTimeout = ca.serves(t, here(), ca), 10 })
	cert, key := ca.issue(t, &x509.Certificate{})
	writeFile(t, path("operator.pem"), string(cert))
	writeFile(t, path("operator.key"), string(key))
	js := c.client(t, nats.RootCAs(path("ca.pem")), nats.ClientCert(path("operator.pem"), path("operator.key")))
	c.stream(t, js, jetstream.StreamConfig{})

	w := newOperatorWorld(t, "--ca-file", path("ca.pem"), "--client-cert", path("client.pem"), "--client-key", path("client.key"),
		"--retry-schedule", strings.Repeat("300ms,", 1000)+"1s", "--attempt-timeout", "5s")
	w.feeds(t, "add", "stream", "--url", strings.Replace(c.url(), "nats://", "tls://", 1))
	next := 0
	insert := func() {
		next++
		w.db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) VALUES (%d, 7, '1')`, next))
	}
	insert()
	awaitMessages(t, js, "WALHOOK", 1)

	expired := here()
	expired.NotAfter = time.Now().Add(-time.Minute)
	for _, trouble := range []struct {
		detail string
		tls    *tls.Config
	}{
		{"the server's certificate has expired: renew it", ca.serves(t, expired, ca)},
		{"name its file with --ca-file", other.serves(t, here(), ca)},
		{"name the server in the feed's URL as its certificate does", ca.serves(t, &x509.Certificate{DNSNames: []string{"nats.example"}}, ca)},
		{"set --client-cert", ca.serves(t, here(), other)},
	} {
		c.options[0].TLSConfig = trouble.tls
		c.stop(0)
		c.start(t, 0)
		insert()
		w.awaitDetail(t, "nats_tls", trouble.detail)
		w.afresh(t, "stream")
	}
	if out, _ := walhook(t, "doctor", "--source", w.db.URL, "--slot", "feeds_"+w.db.Name, "--ca-file", path("ca.pem"), "--client-cert", path("client.pem"), "--client-key", path("client.key")); !strings.Contains(out, "set --client-cert, or --client-certs for its host") {
		t.Errorf("doctor says %s", out)
	}

	present(other) // another authority signs it now, and nothing restarts
	operator, operatorKey := other.issue(t, &x509.Certificate{})
	writeFile(t, path("operator.pem"), string(operator))
	writeFile(t, path("operator.key"), string(operatorKey))
	w.afresh(t, "stream")
	again := c.client(t, nats.RootCAs(path("ca.pem")), nats.ClientCert(path("operator.pem"), path("operator.key")))
	awaitMessages(t, again, "WALHOOK", uint64(next))
}
