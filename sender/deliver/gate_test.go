package deliver

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"
)

// gateTo opens a gate to a receiver, as net/http would.
func gateTo(t *testing.T, c *HTTP, url string) *gate {
	t.Helper()
	n := newNetHTTP(&c.config, c.dialer, true)
	scheme, address, _ := strings.Cut(url, "://")
	address, _, _ = strings.Cut(address, "/")
	dial := n.dialPlain
	if scheme == "https" {
		dial = n.dialSecure
	}
	conn, err := dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*gate)
}

// TestGate_StaysShutToARequestBehindBytesThatNobodyHasRead has the receiver's bytes in the
// socket before anything reads, so that reader and writer meet them in any order.
func TestGate_StaysShutToARequestBehindBytesThatNobodyHasRead(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for name, config := range map[string]*tls.Config{
		"plain":                   nil,
		"TLS 1.2":                 {MaxVersion: tls.VersionTLS12},
		"TLS 1.3":                 {MinVersion: tls.VersionTLS13},
		"TLS 1.3 without tickets": {MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spoken, got := make(chan struct{}), make(chan int)
			says := make(chan string, 1)
			receive := func(conn net.Conn) {
				io.WriteString(conn, <-says)
				spoken <- struct{}{}
				n, _ := conn.Read(make([]byte, 100))
				got <- n
			}
			c := testHTTP(t)
			var url string
			if config == nil {
				url = rawReceiver(t, func(conn net.Conn, _ *bufio.Reader) { receive(conn) })
			} else {
				config.Certificates = []tls.Certificate{ca.local()}
				url = secured(t, config, func(conn *tls.Conn) { receive(conn) })
				ca.trust(c)
			}
			for i := range 100 {
				if i < 95 {
					says <- "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
				} else {
					says <- "\x00" // after which the reader waits for more: see firstBytes
				}
				g := gateTo(t, c, url)
				<-spoken
				g.carry(&carried{})
				read := make(chan error)
				go func() {
					_, err := g.Read(make([]byte, 4096))
					read <- err
				}()
				n, err := g.Write([]byte("POST / HTTP/1.1\r\n\r\n"))
				if n != 0 || !errors.Is(err, errSpokeFirst) {
					t.Errorf("%d bytes of the request written, %v; want %v", n, err, errSpokeFirst)
				}
				if err := <-read; !errors.Is(err, errSpokeFirst) {
					t.Errorf("what came before the request is read with %v; want %v", err, errSpokeFirst)
				}
				g.Close()
				if n := <-got; n != 0 {
					t.Errorf("the receiver got %d bytes", n)
				}
			}
		})
	}
}

// TestGate_OpensBehindRecordsWithoutData has a session ticket arrive in two parts around
// the moment of the request.
func TestGate_OpensBehindRecordsWithoutData(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]time.Duration{"in time": recordTimeout / 5, "too late": 3 * recordTimeout} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newAuthority(t)
			begun := make(chan struct{})
			url := securedByHand(t, ca, func(w *recordWriter, r *bufio.Reader) {
				held := &heldConn{Conn: w.conn, said: func() { close(begun) }, pause: late}
				held.hold.Store(true)
				w.conn = held
				if w.ticket() == nil && readRequest(r) == nil {
					w.data("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			})
			c := ca.trust(testHTTP(t))
			g := gateTo(t, c, url)
			<-begun
			g.carry(&carried{})
			b := make([]byte, 4096)
			type result struct {
				n   int
				err error
			}
			read := make(chan result, 1)
			go func() {
				n, err := g.Read(b)
				read <- result{n, err}
			}()
			_, err := io.WriteString(g, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
			if late > recordTimeout {
				if !errors.Is(err, errSpokeFirst) {
					t.Errorf("%v, want %v", err, errSpokeFirst)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if r := <-read; r.err != nil || !strings.HasPrefix(string(b[:r.n]), "HTTP/1.1 200 OK") {
				t.Errorf("%q, %v", b[:r.n], r.err)
			}
		})
	}
}

// TestGate_WhatNetHTTPHasReadBeforeAnswersNoRequest has the second request get the
// connection before net/http has looked at what came with the first answer.
func TestGate_WhatNetHTTPHasReadBeforeAnswersNoRequest(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]string{
		"whole":  "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n",
		"a part": "HTTP/1.1 410 Go",
		"a body": "HTTP/1.1 410 Gone\r\nContent-Length: 2\r\n\r\nno",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const fine = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
			url := rawReceiver(t, func(conn net.Conn, r *bufio.Reader) {
				for readRequest(r) == nil {
					io.WriteString(conn, fine+ahead)
				}
			})
			c := testHTTP(t)
			n := newNetHTTP(&c.config, c.dialer, true)
			defer n.CloseIdleConnections()
			second := make(chan error, 1)
			send := func(ctx context.Context) error {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("{}"))
				if err != nil {
					return err
				}
				resp, err := n.RoundTrip(req)
				if err == nil {
					defer resp.Body.Close()
					if resp.StatusCode != http.StatusOK {
						err = errors.New(resp.Status)
					}
				}
				return err
			}
			// PutIdleConn runs on the reader, which waits until the other request is on its way.
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{PutIdleConn: func(error) {
				go func() { second <- send(t.Context()) }()
				time.Sleep(50 * time.Millisecond)
			}})
			if err := send(ctx); err != nil {
				t.Errorf("the first request: %v", err)
			}
			if err := <-second; err != nil {
				t.Errorf("the second request: %v; want its own answer", err)
			}
		})
	}
}

func TestWire_AnAlertMayComeBehindDataThatIsHeld(t *testing.T) {
	t.Parallel()
	record := func(kind byte) []byte { return []byte{kind, 3, 3, 0, 2, 0, 0} }
	for _, c := range []struct {
		name  string
		kinds []byte
		holds bool
	}{
		{"data", []byte{20, 22, 23}, false},
		{"data and a warning", []byte{20, 22, 23, 21}, true},
		{"data, a warning, and more", []byte{20, 22, 23, 21, 23}, true},
		{"a warning in the handshake", []byte{22, 21, 22, 20, 22}, false},
	} {
		here, there := net.Pipe()
		defer here.Close()
		w := newWire(here)
		for _, kind := range c.kinds {
			go there.Write(record(kind))
			if _, err := io.ReadFull(w, make([]byte, 7)); err != nil {
				t.Fatal(err)
			}
		}
		if w.holdsPart() != c.holds {
			t.Errorf("%s: holdsPart is %v", c.name, !c.holds)
		}
	}
}

// TestGate_IsNotDrainedWhileTheReaderHasNotSeenWhatArrived keeps a reader from running
// after its bytes have arrived.
func TestGate_IsNotDrainedWhileTheReaderHasNotSeenWhatArrived(t *testing.T) {
	t.Parallel()
	speak := make(chan struct{})
	url := rawReceiver(t, func(conn net.Conn, r *bufio.Reader) {
		<-speak
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		_, _ = r.ReadByte()
	})
	g := gateTo(t, testHTTP(t), url)
	g.carry(&carried{})
	drained := func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.drained()
	}
	if drained() {
		t.Error("nobody reads, and it is drained")
	}
	read := make(chan error, 1)
	go func() {
		_, err := g.Read(make([]byte, 100))
		read <- err
	}()
	for began := time.Now(); !drained(); {
		if time.Since(began) > patience {
			t.Fatal("the reader waits, and it is not drained")
		}
	}
	g.mu.Lock() // the reader cannot look
	close(speak)
	for here := false; !here; {
		if err := g.socket.Control(func(fd uintptr) { here = readable(fd) }); err != nil {
			t.Fatal(err)
		}
	}
	if g.drained() {
		t.Error("bytes are in the socket, and it is drained")
	}
	g.mu.Unlock()
	if err := <-read; !errors.Is(err, errSpokeFirst) {
		t.Errorf("read with %v, want %v", err, errSpokeFirst)
	}
}
