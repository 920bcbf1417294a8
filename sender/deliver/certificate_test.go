package deliver

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// authority is a certificate authority of a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	issued := a.issue(template)
	a.cert, a.key = issued.Leaf, issued.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// issue completes a template and signs it; the authority's own one by itself.
func (a *authority) issue(template *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = template.NotBefore.Add(24 * time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// local is a good certificate for this machine.
func (a *authority) local() tls.Certificate {
	return a.issue(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
}

// certificateFor is what a certificate for an address is issued by.
func certificateFor(address string) *x509.Certificate {
	return &x509.Certificate{IPAddresses: []net.IP{net.ParseIP(address)}}
}

// trust makes a destination trust the authority.
func (a *authority) trust(c *HTTP) *HTTP {
	c.dialer.tls.RootCAs = x509.NewCertPool()
	c.dialer.tls.RootCAs.AddCert(a.cert)
	return c
}

// secured answers TLS connections, once the handshake is done, with f.
func secured(t testing.TB, config *tls.Config, f func(*tls.Conn)) (url string) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if c := conn.(*tls.Conn); c.HandshakeContext(t.Context()) == nil {
					f(c)
				}
			}()
		}
	}()
	return "https://" + listener.Addr().String() + "/hook"
}

func TestAttempt_CertificatesAreToldApart(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		ca := newAuthority(t)
		local := []net.IP{net.IPv4(127, 0, 0, 1)}
		alone := &authority{t: t}
		middle := ca.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "middle"}})
		under := &authority{t: t, cert: middle.Leaf, key: middle.PrivateKey.(*ecdsa.PrivateKey)}
		whole := under.local()
		whole.Certificate = append(whole.Certificate, middle.Certificate...)
		strange := newAuthority(t)
		strangers := strange.local()
		strangers.Certificate = append(strangers.Certificate, strange.cert.Raw)
		for _, c := range []struct {
			name   string
			config *tls.Config
			want   failure
		}{
			{"with its intermediate", &tls.Config{Certificates: []tls.Certificate{whole}}, ""},
			{"without its intermediate", &tls.Config{Certificates: []tls.Certificate{under.local()}}, failTLSChain},
			{"with an unknown authority", &tls.Config{Certificates: []tls.Certificate{strangers}}, failTLSAuthority},
			{"trusted", &tls.Config{Certificates: []tls.Certificate{ca.local()}}, ""},
			{"expired", &tls.Config{Certificates: []tls.Certificate{ca.issue(&x509.Certificate{IPAddresses: local, NotBefore: time.Now().Add(-48 * time.Hour)})}}, failTLSExpired},
			{"not yet valid", &tls.Config{Certificates: []tls.Certificate{ca.issue(&x509.Certificate{IPAddresses: local, NotBefore: time.Now().Add(time.Hour)})}}, failTLSNotYetValid},
			{"another host's", &tls.Config{Certificates: []tls.Certificate{ca.issue(&x509.Certificate{DNSNames: []string{"other.example"}})}}, failTLSHostname},
			{"of nobody", &tls.Config{Certificates: []tls.Certificate{ca.issue(&x509.Certificate{})}}, failTLSHostname},
			{"self-signed", &tls.Config{Certificates: []tls.Certificate{alone.issue(&x509.Certificate{IPAddresses: local, Subject: pkix.Name{CommonName: "self"}})}}, failTLSSelfSigned},
			{"of an unknown authority", &tls.Config{Certificates: []tls.Certificate{newAuthority(t).local()}}, failTLSAuthority},
			{"for other uses", &tls.Config{Certificates: []tls.Certificate{ca.issue(&x509.Certificate{IPAddresses: local, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}})}}, failTLSCertificate},
			{"requires ours", &tls.Config{Certificates: []tls.Certificate{ca.local()}, ClientAuth: tls.RequireAnyClientCert}, failTLSClientCert},
			{"requires ours, TLS 1.2", &tls.Config{Certificates: []tls.Certificate{ca.local()}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}, failTLSClientCert},
			{"requires ours, HTTP/2", &tls.Config{Certificates: []tls.Certificate{ca.local()}, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2"}}, failTLSClientCert},
			{"asks for ours, and takes none", &tls.Config{Certificates: []tls.Certificate{ca.local()}, ClientAuth: tls.RequestClientCert}, ""},
			{"an old version", &tls.Config{Certificates: []tls.Certificate{ca.local()}, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}, failTLSAlert},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				url := secured(t, c.config, func(conn *tls.Conn) {
					_, _ = conn.Read(make([]byte, 1)) // who answers before the request is not believed
					io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
					io.Copy(io.Discard, conn)
				})
				a := ca.trust(client.http(t, shortHeader)).deliver(t.Context(), testEndpoint(url), testEvent, time.Now())
				if a.failure != c.want || c.want == "" && a.status != http.StatusNoContent {
					t.Errorf("status %d, failure %q (%s), want %q", a.status, a.failure, a.detail, c.want)
				}
			})
		}
	})
}

func TestAttempt_HandshakesThatFailAreNamed(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		for _, c := range []struct {
			name    string
			receive func(net.Conn)
			want    failure
		}{
			{"plain HTTP", func(conn net.Conn) {
				conn.Read(make([]byte, 100))
				io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			}, failTLSPlain},
			{"closed", func(conn net.Conn) { conn.Read(make([]byte, 4096)) }, failTLSClosed},
			{"closed with some of it unread", func(conn net.Conn) { conn.Read(make([]byte, 1)) }, failTLSClosed},
			{"closed amid a record", func(conn net.Conn) {
				conn.Read(make([]byte, 4096))
				conn.Write([]byte{22, 3, 3, 0x3f, 0xff})
			}, failTLSClosed},
			{"reset", func(conn net.Conn) { conn.Read(make([]byte, 1)); resets(conn) }, failTLSClosed},
			{"HTTP/2 without TLS", func(conn net.Conn) {
				conn.Write([]byte{0, 0, 0, frameSettings, 0, 0, 0, 0, 0})
				conn.Read(make([]byte, 4096))
			}, failPlainHTTP2},
			{"silence", func(conn net.Conn) { <-t.Context().Done() }, failTimeoutTLS},
			{"a record, dripped", func(conn net.Conn) {
				conn.Write([]byte{22, 3, 3, 0x3f, 0xff})
				drip(conn, "x")
			}, failTimeoutTLS},
			{"a fatal alert", func(conn net.Conn) {
				conn.Read(make([]byte, 4096))
				conn.Write([]byte{21, 3, 3, 0, 2, 2, 40})
			}, failTLSAlert},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				url := strings.Replace(rawReceiver(t, func(conn net.Conn, _ *bufio.Reader) { c.receive(conn) }), "http:", "https:", 1)
				var about []limits
				if c.want == failTimeoutTLS {
					about = []limits{shortTLS}
				}
				h := client.http(t, about...)
				atMost(t, tooLong, func() {
					if a := h.deliver(t.Context(), testEndpoint(url), testEvent, time.Now()); a.failure != c.want {
						t.Errorf("failure %q (%s), want %q", a.failure, a.detail, c.want)
					}
				})
			})
		}
	})
}

// Some servers close instead of sending an alert. A server that has answered on the
// connection before closes for another reason.
func TestAttempt_AReceiverThatWantsACertificateAndClosesIsNamed(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		for name, c := range map[string]struct {
			asks tls.ClientAuthType
			good int
			want failure
		}{
			"asked, at once":          {tls.RequestClientCert, 0, failTLSClientCert},
			"asked, after an answer":  {tls.RequestClientCert, 1, failClosed},
			"not asked":               {tls.NoClientCert, 0, failClosed},
			"not asked, and answered": {tls.NoClientCert, 1, failClosed},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ca := newAuthority(t)
				url := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}, ClientAuth: c.asks}, func(conn *tls.Conn) {
					r := bufio.NewReader(conn)
					for range c.good {
						if readRequest(r) == nil {
							io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
						}
					}
					readRequest(r)
				})
				h := ca.trust(client.http(t))
				for range c.good {
					if a := h.deliver(t.Context(), testEndpoint(url), testEvent, time.Now()); a.status != 204 {
						t.Fatalf("%+v", a)
					}
				}
				if a := h.deliver(t.Context(), testEndpoint(url), testEvent, time.Now()); a.failure != c.want {
					t.Errorf("%q (%s), want %q", a.failure, a.detail, c.want)
				}
			})
		}
	})
}

func TestAttempt_TheStatusLineDecidesOverTLSToo(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		ca := newAuthority(t)
		url := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}}, func(conn *tls.Conn) {
			conn.Read(make([]byte, 4096))
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			drip(conn, "X: y\r\n")
		})
		a := ca.trust(client.http(t, shortHeader)).deliver(t.Context(), testEndpoint(url), testEvent, time.Now())
		if a.status != 200 {
			t.Errorf("%+v, want status 200", a)
		}
	})
}
