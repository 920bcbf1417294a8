package deliver

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pemOf writes a certificate and its key as PEM.
func pemOf(t *testing.T, c tls.Certificate) (cert, key []byte) {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(c.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, one := range c.Certificate {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: one})
	}
	return text.Bytes(), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

func put(t *testing.T, path string, text []byte) string {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// identityFiles issues a certificate of a name into two files.
func (a *authority) identityFiles(t *testing.T, dir, file, name string) (cert, key string) {
	t.Helper()
	certText, keyText := pemOf(t, a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}))
	return put(t, filepath.Join(dir, file+".crt"), certText), put(t, filepath.Join(dir, file+".key"), keyText)
}

// mutual is a receiver that requires a certificate of an authority. It answers with the
// name in it.
func (a *authority) mutual(t *testing.T, http2 bool) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot) // so that the answer is kept
		_, _ = io.WriteString(w, r.Proto+" "+r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // those that are refused
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	server.EnableHTTP2 = http2
	server.TLS = &tls.Config{Certificates: []tls.Certificate{a.local()}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

// A receiver that requires a certificate gets that of its host, and after a renewal the new
// one; a renewal that is broken changes nothing.
func TestAttempt_PresentsTheCertificateOfTheHost(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		for _, http2 := range []bool{false, true} {
			ca, dir := newAuthority(t), t.TempDir()
			caText, _ := pemOf(t, tls.Certificate{Certificate: [][]byte{ca.cert.Raw}, PrivateKey: ca.key})
			caFile := put(t, filepath.Join(dir, "ca.pem"), caText)
			oneCert, oneKey := ca.identityFiles(t, dir, "one", "one")
			otherCert, otherKey := ca.identityFiles(t, dir, "other", "other")
			url := ca.mutual(t, http2)
			try := func(h *HTTP) answer {
				h.Close() // a connection presents its certificate once
				return h.deliver(t.Context(), testEndpoint(url), testEvent, time.Now())
			}
			with := func(certificates ...ClientCertificate) *HTTP {
				h := client.http(t, shortHeader)
				var err error
				if h.dialer.identities, err = newIdentities(&Config{ClientCertificates: certificates, CAFile: caFile}); err != nil {
					t.Fatal(err)
				}
				return h
			}
			wants := func(what string, a answer, name string) {
				t.Helper()
				if a.status != http.StatusTeapot || !strings.HasSuffix(a.detail, " "+name) {
					t.Errorf("%s, HTTP/2 %v: status %d, %q, failure %q, want the certificate of %s", what, http2, a.status, a.detail, a.failure, name)
				}
			}
			every, other := ClientCertificate{Cert: oneCert, Key: oneKey}, ClientCertificate{Host: "other.example", Cert: otherCert, Key: otherKey}
			h := with(other, every)
			wants("for every host", try(h), "one")
			wants("of its own", try(with(ClientCertificate{Host: "127.0.0.1", Cert: otherCert, Key: otherKey}, every)), "other")
			if a := try(with(other)); a.failure != failTLSClientCert {
				t.Errorf("without one: status %d, failure %q (%s)", a.status, a.failure, a.detail)
			}
			if a := try(client.http(t, shortHeader)); a.failure != failTLSChain {
				t.Errorf("without --ca-file: status %d, failure %q (%s)", a.status, a.failure, a.detail)
			}

			renewed := func() answer {
				h.dialer.identities.certificates[1].pair.looked = time.Time{}
				return try(h)
			}
			put(t, oneCert, []byte("-----BEGIN CERT"))
			wants("a broken renewal", renewed(), "one")
			ca.identityFiles(t, dir, "one", "renewed")
			wants("a renewal", renewed(), "renewed")
			if err := os.Remove(oneKey); err != nil {
				t.Fatal(err)
			}
			wants("its key is gone", renewed(), "renewed")
		}
	})
}

func TestClientCertificate_MatchesHosts(t *testing.T) {
	for _, c := range []struct {
		pattern, host string
		want          bool
	}{
		{"", "a.example", true},
		{"a.example", "A.Example", true},
		{"a.example", "b.a.example", false},
		{"*.example", "a.example", true},
		{"*.example", "b.a.EXAMPLE", true},
		{"*.example", "example", false},
		{"*.example", ".example", false},
		{"*.example", "anexample", false},
		{"10.0.0.7", "10.0.0.7", true},
	} {
		if got := (&ClientCertificate{Host: c.pattern}).matches(c.host); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.host, got)
		}
	}
	for _, host := range []string{"*", "*.", "a.*.example", "https://a.example", "*.a.example:443"} {
		if (&ClientCertificate{Host: host, Cert: "c", Key: "k"}).Validate() == nil {
			t.Errorf("%q is taken", host)
		}
	}
}

// A pattern is in the form in which hosts are dialled, or is refused: one that matches
// nothing would let another certificate be presented without a word.
func TestHostPattern_IsAHostOrRefused(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "hooks.example.com": "hooks.example.com", "Hooks.EXAMPLE.com.": "hooks.example.com", "localhost": "localhost", "a_b.example": "a_b.example",
		"bücher.test": "xn--bcher-kva.test", "*.BÜCHER.test": "*.xn--bcher-kva.test", "xn--bcher-kva.test": "xn--bcher-kva.test", "*.example.com": "*.example.com",
		"10.0.0.7": "10.0.0.7", "0x7f.1": "127.0.0.1", "::1": "::1", "[::1]": "::1", "2001:DB8::0:1": "2001:db8::1",
	} {
		if got, err := HostPattern(text); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", text, got, err, want)
		}
	}
	for text, hint := range map[string]string{
		"localhost:44999": "; here localhost", "10.0.0.7:443": "; here 10.0.0.7", "[::1]:443": "; here ::1", "https://a.example/x": "; here a.example", "a.example/x": "; here a.example",
		"*.a.example:443": "; here *.a.example", "bücher.test:443": "; here xn--bcher-kva.test", "me@a.example": "; here a.example", "*.10.0.0.7": ": write 10.0.0.7",
		"a b.example": "such as hooks.example.com", "*": "such as", "*.": "such as", ".": "such as", "a.*.example": "such as", "*a.example": "such as", "a..example": "such as",
		"10.0.0.0/8": "such as", "a.example?x": "such as", "ａ／b.example": "such as", "a\\b": "such as", "256.1.1.1": "such as",
	} {
		if got, err := HostPattern(text); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q is %q, %v; want an error with %q", text, got, err, hint)
		}
	}
}

func TestIdentities_PresentByAHostsASCIIName(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	var all []ClientCertificate
	for i, host := range []string{"bücher.test", "*.Straße.test", "[2001:db8:0::1]", ""} {
		c := ClientCertificate{Host: host}
		c.Cert, c.Key = ca.identityFiles(t, dir, fmt.Sprint(i), fmt.Sprint(i))
		all = append(all, c)
	}
	ids, err := newIdentities(&Config{ClientCertificates: all})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"xn--bcher-kva.test": "0", "bücher.test": "0", "a.xn--strae-oqa.test": "1", "xn--strae-oqa.test": "3", "2001:db8::1": "2", "other.test": "3",
	} {
		if got := ids.present(host, time.Now()).Leaf.Subject.CommonName; !strings.HasSuffix(got, want) {
			t.Errorf("%s is presented the certificate of %q, want %q", host, got, want)
		}
	}
}

// What cannot be read is said before anything is sent.
func TestNewHTTP_RefusesCertificatesThatCannotBeUsed(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	cert, key := ca.identityFiles(t, dir, "one", "one")
	_, otherKey := ca.identityFiles(t, dir, "other", "other")
	empty := put(t, filepath.Join(dir, "empty"), nil)
	for what, c := range map[string]Config{
		"no file":        {ClientCertificates: []ClientCertificate{{Cert: filepath.Join(dir, "none"), Key: key}}},
		"another's key":  {ClientCertificates: []ClientCertificate{{Cert: cert, Key: otherKey}}},
		"no certificate": {ClientCertificates: []ClientCertificate{{Cert: empty, Key: key}}},
		"no authority":   {CAFile: empty},
		"no key":         {ClientCertificates: []ClientCertificate{{Cert: cert}}},
	} {
		if _, err := NewHTTP(c); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}
