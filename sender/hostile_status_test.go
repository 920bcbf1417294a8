package sender

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/net/http2"

	"walhook/sender/deliver"
)

// statusOverHTTP2 answers each request over HTTP/2 with a :status that net/http
// would not send.
func statusOverHTTP2(t *testing.T, status string, certificate tls.Certificate) (url string) {
	t.Helper()
	return "https://" + serve(t, func(conn net.Conn) {
		secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}})
		if _, err := io.CopyN(io.Discard, secure, int64(len(http2.ClientPreface))); err != nil {
			return
		}
		framer := http2.NewFramer(secure, secure)
		for err := framer.WriteSettings(); err == nil; {
			var frame http2.Frame
			if frame, err = framer.ReadFrame(); err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					err = framer.WriteSettingsAck()
				}
			case *http2.DataFrame:
				if frame.StreamEnded() {
					block := append([]byte{0x08, byte(len(status))}, status...) // RFC 7541, 6.2.2: indexed name 8
					err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.StreamID, BlockFragment: block, EndHeaders: true, EndStream: true})
				}
			}
		}
	})
}

// statusOverHTTP1 answers each request with a status line.
func statusOverHTTP1(t *testing.T, line string) (url string) {
	t.Helper()
	return "http://" + serve(t, func(conn net.Conn) {
		if request, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			_, _ = io.Copy(io.Discard, request.Body)
			_, _ = io.WriteString(conn, line+"\r\n\r\n")
		}
	})
}

func serve(t *testing.T, f func(net.Conn)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
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
				f(conn)
			}()
		}
	}()
	return listener.Addr().String()
}

// TestSender_OnPostgresAnInvalidStatusStopsNoOther has receivers whose
// status fits no column beside one that is well.
func TestSender_OnPostgresAnInvalidStatusStopsNoOther(t *testing.T) {
	t.Parallel()
	known := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	defer known.Close()
	roots := x509.NewCertPool()
	roots.AddCert(known.Certificate())
	healthy := newReceiver(t, 0)
	store, conn := openOutbox(t,
		statusOverHTTP2(t, "99999999999", known.TLS.Certificates[0]), statusOverHTTP1(t, "HTTP/1.1 -99 No"), healthy.server.URL)
	execute(t, conn, appendSQL, 1, 300, 3)
	s, err := New(Config{HTTP: deliver.Config{AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, RootCAs: roots}}, Outbox(store), zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	eventually(t, conn, 100, `SELECT count(*) FROM walhook.attempt WHERE endpoint = 3 AND outcome = 'delivered'`)
	eventually(t, conn, 2, `SELECT count(DISTINCT endpoint) FROM walhook.attempt WHERE reason = 'invalid_status' AND status = 0`)
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	healthy.check("healthy", 100)
}
