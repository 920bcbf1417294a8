package httpd

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// quick are bounds that a test can wait for.
var quick = times{header: 700 * time.Millisecond, body: 1500 * time.Millisecond, write: time.Second, idle: 2 * time.Second, rest: 200 * time.Millisecond, gone: 300 * time.Millisecond}

// patient are bounds that no busy machine meets.
var patient = times{header: time.Minute, body: time.Minute, write: time.Minute, idle: time.Minute, rest: time.Minute, gone: time.Minute}

// start serves a handler until the test ends.
func start(t *testing.T, cfg Config, log *zap.Logger) string {
	t.Helper()
	cfg.Setting, cfg.Address = "listen", "127.0.0.1:0"
	if cfg.times == (times{}) {
		cfg.times = patient
	}
	server, err := NewListeners(log, nil).Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, time.Second) }()
	t.Cleanup(func() {
		cancel()
		<-served
	})
	return server.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ended waits for the other end to close, and says what it answered and whether that was
// in time.
func ended(conn net.Conn, within time.Duration) (answer string, inTime bool) {
	_ = conn.SetReadDeadline(time.Now().Add(within))
	text, err := io.ReadAll(conn)
	ne, ok := err.(net.Error)
	return string(text), !ok || !ne.Timeout()
}

// drip sends text a byte at a time, until the other end is gone.
func drip(conn net.Conn, text string, every time.Duration) {
	for i := range len(text) {
		if _, err := conn.Write([]byte{text[i]}); err != nil {
			return
		}
		time.Sleep(every)
	}
}

func TestServer_NobodyHoldsAConnectionForNothing(t *testing.T) {
	t.Parallel()
	address := start(t, Config{times: quick, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/read":
			_, err := io.Copy(io.Discard, r.Body)
			_, _ = fmt.Fprint(w, "read: ", err)
		case "/large":
			for range 2000 {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	})}, zap.NewNop())
	var attacks sync.WaitGroup
	slack := 1500 * time.Millisecond
	for name, attack := range map[string]struct {
		send   string
		drip   string
		within time.Duration
		answer string // begins so
	}{
		"nothing at all":                    {"", "", quick.header + slack, ""},
		"half of the headers":               {"GET / HTTP/1.1\r\nHost: x\r\nA: ", "", quick.header + slack, ""},
		"headers a byte at a time":          {"GET / HTTP/1.1\r\n", strings.Repeat("X-Slow: 1\r\n", 100), quick.header + slack, ""},
		"no body, not wanted":               {"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n", "", quick.rest + slack, "HTTP/1.1 401"},
		"no chunk, not wanted":              {"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "", quick.rest + slack, "HTTP/1.1 401"},
		"a slow body, not wanted":           {"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n", strings.Repeat("a", 2000), quick.rest + slack, "HTTP/1.1 401"},
		"a large body, not wanted":          {"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", "", quick.rest + slack, "HTTP/1.1 401"},
		"no body, waited for":               {"PUT /read HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n", "", quick.body + slack, "HTTP/1.1 200"},
		"a body a byte at a time":           {"PUT /read HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n", strings.Repeat("a", 2000), quick.body + slack, "HTTP/1.1 200"},
		"chunks a byte at a time":           {"PUT /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("1\r\na\r\n", 500), quick.body + slack, "HTTP/1.1 200"},
		"expects to be asked, and is not":   {"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n", "", quick.rest + slack, "HTTP/1.1 401"},
		"too many headers":                  {"GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-Flood: 123456789\r\n", 3000), "", quick.header + slack, "HTTP/1.1 431"},
		"one long header":                   {"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("a", 2*maxHeaderBytes), "", quick.header + slack, "HTTP/1.1 431"},
		"a request, then nothing of a next": {"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT", "", quick.header + slack, "HTTP/1.1 401"},
	} {
		attacks.Go(func() {
			answer, inTime := "", false
			for tries := 0; tries < 3 && !inTime; tries++ { // a busy machine makes one longer, and none shorter
				conn := dial(t, address)
				_, _ = conn.Write([]byte(attack.send))
				go drip(conn, attack.drip, 30*time.Millisecond)
				answer, inTime = ended(conn, attack.within)
			}
			if !inTime {
				t.Errorf("%s: still open after %s: %q", name, attack.within, answer)
			} else if !strings.HasPrefix(answer, attack.answer) {
				t.Errorf("%s: answered %q, want %s", name, answer, attack.answer)
			}
		})
	}
	attacks.Go(func() {
		conn := dial(t, address)
		_, _ = conn.Write([]byte("GET /large HTTP/1.1\r\nHost: x\r\n\r\n"))
		time.Sleep(quick.write + slack)
		if n, err := io.Copy(io.Discard, conn); n > 64<<20 {
			t.Errorf("an answer that is not read went on to %d bytes, %v", n, err)
		}
	})
	attacks.Wait()
}

// What has bounds of its own is not ended by these.
func TestServer_AHandlerMayTakeLongerThanABody(t *testing.T) {
	t.Parallel()
	gone := make(chan error, 1)
	address := start(t, Config{times: quick, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
			gone <- context.Cause(r.Context())
		case <-time.After(quick.body + time.Second):
			w.WriteHeader(http.StatusNoContent)
		}
	})}, zap.NewNop())
	resp, err := http.Post("http://"+address, "text/plain", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err, <-gone)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Error(resp.Status)
	}
}

func TestServer_ConnectionsAreBoundedInAllAndPerAddress(t *testing.T) {
	t.Parallel()
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	asks := func(conn net.Conn) string {
		_, _ = conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		line, _ := bufio.NewReader(conn).ReadString('\n')
		return strings.TrimSpace(line)
	}
	const served, refused = "HTTP/1.1 200 OK", "HTTP/1.1 503 Service Unavailable"
	for _, c := range []struct {
		name    string
		bounds  Bounds
		trusted string
		open    int
	}{
		{"per address", Bounds{Total: 100, PerAddress: 5}, "", 5},
		{"in all", Bounds{Total: 7, PerAddress: 50}, "", 7},
		{"a trusted proxy, in all", Bounds{Total: 9, PerAddress: 3}, "127.0.0.0/8", 9},
	} {
		t.Run(c.name, func(t *testing.T) {
			core, logs := observer.New(zap.InfoLevel)
			cfg := Config{Handler: ok, Bounds: c.bounds}
			if c.trusted != "" {
				cfg.Trusted = []netip.Prefix{netip.MustParsePrefix(c.trusted)}
			}
			address := start(t, cfg, zap.New(core))
			var conns []net.Conn
			for range c.open {
				conns = append(conns, dial(t, address))
				if line := asks(conns[len(conns)-1]); line != served {
					t.Fatalf("connection %d: %s", len(conns), line)
				}
			}
			for range 20 {
				if line := asks(dial(t, address)); line != refused && line != "" {
					t.Errorf("one too many: %s", line)
				}
			}
			if n := logs.FilterMessage("too many connections, closing the newest").Len(); n != 1 {
				t.Errorf("%d lines, want one", n)
			}
			_ = conns[0].Close()
			for end := time.Now().Add(time.Minute); asks(dial(t, address)) != served; {
				if time.Now().After(end) {
					t.Fatal("the place of one that is gone is not given again")
				}
			}
		})
	}
}

func TestBounds_LeaveDeliveriesTheirDescriptors(t *testing.T) {
	t.Parallel()
	for descriptors, want := range map[uint64]Bounds{0: {8192, 2048}, 200: {50, 12}, 1024: {256, 64}, 20000: {5000, 1250}, 65536: {8192, 2048}, 1 << 62: {8192, 2048}, 20: {16, 8}} {
		if got := BoundsFor(descriptors); got != want {
			t.Errorf("%d: %v, want %v", descriptors, got, want)
		}
	}
	a := Network(netip.MustParseAddr("2001:db8::1"))
	if b := Network(netip.MustParseAddr("2001:db8::ffff:1")); a != b {
		t.Error("a host has many addresses in a network of IPv6")
	}
	if Network(netip.MustParseAddr("::ffff:192.0.2.1")) != netip.MustParseAddr("192.0.2.1") {
		t.Error("an address of IPv4 has two forms")
	}
}

// pair makes a certificate of a name, and its key, as PEM.
func pair(t *testing.T, name string, until time.Time) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCertificate_IsReadAgainWhenItsFilesChange replaces them as an operator does,
// and as Kubernetes does: ..data is a symbolic link to a folder, replaced by rename.
func TestCertificate_IsReadAgainWhenItsFilesChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	version := 0
	swap := func(certText, keyText []byte) {
		version++
		folder := filepath.Join(dir, fmt.Sprintf("..%d", version))
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(folder, "tls.crt"), certText)
		write(t, filepath.Join(folder, "tls.key"), keyText)
		link := filepath.Join(dir, "..tmp")
		if err := os.Symlink(folder, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	year := time.Now().Add(365 * 24 * time.Hour)
	oneCert, oneKey := pair(t, "one.example", year)
	swap(oneCert, oneKey)
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	core, logs := observer.New(zap.InfoLevel)
	c, err := ReadCertificate(cert, key, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	c.every = 50 * time.Millisecond
	address := start(t, Config{Certificate: c, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}, zap.NewNop())
	shown := func() string {
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].DNSNames[0]
	}
	becomes := func(want string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); shown() != want; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("it shows %s, want %s", shown(), want)
			}
		}
	}
	becomes("one.example")
	twoCert, twoKey := pair(t, "two.example", year)
	swap(twoCert, twoKey)
	becomes("two.example")

	threeCert, threeKey := pair(t, "three.example", year)
	for name, bad := range map[string][2][]byte{"another's key": {threeCert, twoKey}, "no certificate": {[]byte("no"), threeKey}} {
		told := len(logs.FilterMessage("the new certificate cannot be used, keeping the previous one").All())
		swap(bad[0], bad[1])
		said := func() int {
			return len(logs.FilterMessage("the new certificate cannot be used, keeping the previous one").All()) - told
		}
		for end := time.Now().Add(time.Minute); said() == 0 && time.Now().Before(end); {
			time.Sleep(c.every)
		}
		time.Sleep(3 * c.every) // it looks again, and has nothing new to say
		if got := shown(); got != "two.example" {
			t.Errorf("%s: it shows %s", name, got)
		}
		if n := said(); n != 1 {
			t.Errorf("%s: said %d times, want once", name, n)
		}
	}
	swap(threeCert, threeKey)
	becomes("three.example")
	if _, fault := c.Leaf(); fault != nil {
		t.Error(fault)
	}
	if _, err := PairOf(cert, filepath.Join(dir, "none")); err == nil {
		t.Error("no key is no fault")
	}
}

// Who has sent all may close its side and still wait for the answer; who is gone
// does not keep a handler for ever. Neither can be told from the other.
func TestServer_AnswersWhoHasClosedItsSide(t *testing.T) {
	t.Parallel()
	ends := make(chan error, 1)
	limits := patient
	limits.gone = 3 * time.Second
	address := start(t, Config{times: limits, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			t.Error(err)
		}
		if r.URL.Path == "/long" {
			<-r.Context().Done()
			ends <- context.Cause(r.Context())
			return
		}
		select {
		case <-r.Context().Done():
			http.Error(w, "given up", http.StatusServiceUnavailable)
		case <-time.After(limits.gone / 3): // the end of the stream has been seen by then
		}
	})}, zap.NewNop())
	for _, request := range []string{"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "PUT / HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}"} {
		conn := dial(t, address)
		_, _ = io.WriteString(conn, request)
		_ = conn.(*net.TCPConn).CloseWrite()
		if answer, _ := ended(conn, time.Minute); !strings.Contains(answer, " 200 OK") {
			t.Errorf("%q is answered %q", request, answer)
		}
	}
	conn := dial(t, address)
	_, _ = io.WriteString(conn, "GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
	_ = conn.Close()
	select {
	case cause := <-ends:
		if cause == nil {
			t.Error("the handler's context has no cause")
		}
	case <-time.After(time.Minute):
		t.Error("a handler whose client is gone goes on")
	}
}
