package deliver

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"walhook/internal/loopback"
)

func TestAttempt_AReceiverThatSpeaksAnotherProtocolIsNamed(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		answers := func(answer string) string {
			return rawReceiver(t, func(conn net.Conn, r *bufio.Reader) {
				_, _ = r.Peek(1)
				_, _ = io.WriteString(conn, answer)
				_, _ = io.Copy(io.Discard, r)
			})
		}
		for name, c := range map[string]struct {
			url  string
			want failure
			hint string
		}{
			"HTTP on a port of TLS": {strings.Replace(answers("HTTP/1.1 400 Bad Request\r\n\r\n"), "http:", "https:", 1), failTLSPlain, "use http"},
			"TLS on a port of HTTP": {answers("\x15\x03\x03\x00\x02\x02\x46" + strings.Repeat("\x00", 9)), failPlainTLS, "use https"},
			"HTTP/2 without TLS":    {answers("\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x08\x07\x00\x00\x00\x00\x00"), failPlainHTTP2, "h2c"},
			"neither":               {answers("220 mail.example ESMTP\r\n"), failMalformed, ""},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var about []limits
				if c.want == failPlainTLS || c.want == failPlainHTTP2 { // more might come
					about = []limits{shortHeader}
				}
				a := client.http(t, about...).deliver(t.Context(), testEndpoint(c.url), testEvent, time.Now())
				if a.failure != c.want || !strings.Contains(a.detail, c.hint) {
					t.Errorf("%q (%s), want %q with %q", a.failure, a.detail, c.want, c.hint)
				}
			})
		}
	})
}

// Servers that speak HTTP/2 only send their SETTINGS right after the connection is made.
func TestAttempt_AnHTTP2ServerThatSpeaksFirstIsNamed(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		ca := newAuthority(t)
		const settings = "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"
		for _, c := range []struct {
			name   string
			secure bool
			says   []string // apart
			want   failure
			hint   string
		}{
			{"at once", false, []string{settings}, failPlainHTTP2, "h2c"},
			{"in pieces", false, []string{settings[:1], settings[1:5], settings[5:]}, failPlainHTTP2, "h2c"},
			{"over TLS, not agreed on there", true, []string{settings}, failHTTP2, ""},
			{"another protocol", false, []string{"220 mail.example ESMTP\r\n"}, failSpokeFirst, ""},
			{"a byte", false, []string{"\x00"}, failSpokeFirst, ""},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				receive := func(conn net.Conn) {
					for _, part := range c.says {
						if _, err := io.WriteString(conn, part); err != nil {
							return
						}
					}
					_, _ = io.Copy(io.Discard, conn)
				}
				var about []limits
				if c.name == "over TLS, not agreed on there" { // more might come
					about = []limits{shortHeader}
				}
				h := client.http(t, about...)
				url := ""
				if c.secure {
					url = secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}}, func(conn *tls.Conn) { receive(conn) })
					ca.trust(h)
				} else {
					url = rawReceiver(t, func(conn net.Conn, _ *bufio.Reader) { receive(conn) })
					dial := h.dialer.dial
					h.dialer.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
						conn, err := dial(ctx, network, address)
						if err != nil {
							return nil, err
						}
						if client.limited { // it needs the socket to tell
							return conn, socketOf(conn).Read(readable)
						}
						return newSpokenConn(conn), nil
					}
				}
				a := h.deliver(t.Context(), testEndpoint(url), testEvent, time.Now())
				if a.failure != c.want || !strings.Contains(a.detail, c.hint) {
					t.Errorf("%q (%s), want %q with %q", a.failure, a.detail, c.want, c.hint)
				}
			})
		}
	})
}

// spokenConn is a connection on which the receiver has sent bytes before it is used.
type spokenConn struct {
	net.Conn
	in *bufio.Reader
}

func newSpokenConn(conn net.Conn) *spokenConn {
	s := &spokenConn{conn, bufio.NewReader(conn)}
	_, _ = s.in.Peek(1)
	return s
}

func (s *spokenConn) Read(b []byte) (int, error) { return s.in.Read(b) }

// A name may have an address that is blocked beside one that does not answer.
func TestAttempt_ABlockedAddressHidesNoOther(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		address := loopback.Address(t)
		_, port, _ := net.SplitHostPort(address)
		for _, blocked := range []string{"[2001:db8::1]:" + port, "10.1.2.3:" + port} {
			c := client.http(t)
			dial := c.dialer.net.DialContext
			// As package net dials a name: each address in turn, returning the first error.
			c.dialer.dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
				_, first := dial(ctx, network, blocked)
				_, _ = dial(ctx, network, address)
				return nil, first
			}
			e := testEndpoint("http://both.example:" + port + "/")
			a := c.deliver(t.Context(), e, testEvent, time.Now())
			if a.failure != failRefused || !strings.Contains(a.detail, "refused") || !strings.Contains(a.detail, "not public") {
				t.Errorf("%s: %q (%s), want both told", blocked, a.failure, a.detail)
			}
			if a.failure.shown() != failUnreachable {
				t.Errorf("the account is told %q", a.failure.shown())
			}
		}
	})
}
