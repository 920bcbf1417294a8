package deliver

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"
)

// literalStatus is a header block with one :status, not from the static table.
func literalStatus(text string) []byte {
	return append([]byte{0x08, byte(len(text))}, text...) // RFC 7541, 6.2.2: indexed name 8
}

// http2Answer ends a stream with a status.
func http2Answer(status string) func(http2Conn, uint32) {
	return func(c http2Conn, s uint32) {
		c.frame(frameHeaders, flagEndHeaders|flagEndStream, s, literalStatus(status)...)
	}
}

// unbelievable are invalid statuses.
var unbelievable = []string{
	"99999999999", "2147483648", "4294967496", "9223372036854775807", "9223372036854775808", "99999999999999999999999999",
	"-1", "-200", "+200", "+20", "-20", "0", "000", "007", "020", "099", "20", "2", "2000", "0200", "1000", "2e2", "0x1", "twohundred", "２００", "20O",
}

func TestAttempt_AnInvalidStatusHasAReasonOfItsOwn(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		ca := newAuthority(t)
		check := func(t *testing.T, url string) {
			t.Helper()
			c := ca.trust(client.http(t))
			atMost(t, 900*time.Millisecond, func() { // it waits for no other answer
				began := time.Now()
				a := c.deliver(t.Context(), testEndpoint(url), testEvent, began)
				if a.status != 0 || a.failure != failStatus {
					t.Errorf("status %d, failure %q (%s), want %q", a.status, a.failure, a.detail, failStatus)
				}
				res := a.result(began, time.Now())
				if kept := res.Attempt(1, 1, res.Outcome); kept.Status != 0 || kept.Outcome != string(Retry) || kept.Reason != "invalid_status" {
					t.Errorf("stored as %+v", kept)
				}
			})
		}
		for _, status := range unbelievable {
			t.Run("HTTP/1 "+status, func(t *testing.T) {
				t.Parallel()
				check(t, rawReceiver(t, answersThenDrips("HTTP/1.1 "+status+" OK\r\nContent-Length: 0\r\n\r\n", "")))
			})
			t.Run("HTTP/2 "+status, func(t *testing.T) {
				t.Parallel()
				receiver := &http2Receiver{at: frameData, f: http2Answer(status)}
				if strings.ContainsAny(status, "exwOt２") || len(status) > 18 { // those net/http refuses by itself
					t.Skip("net/http knows it for malformed")
				}
				check(t, secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}, NextProtos: []string{"h2"}}, receiver.serve))
			})
		}
	})
}

func TestResult_WhatIsStoredFitsItsColumns(t *testing.T) {
	t.Parallel()
	for _, r := range []Result{
		{Status: 99999999999, Duration: -time.Hour, Detail: "a\x00b\xff" + strings.Repeat("é", 5000)},
		{Status: -5, Duration: 1<<63 - 1},
		{Status: 1000, Duration: -1 << 63},
	} {
		for _, number := range []int{-1, 1, 1 << 40} {
			a := r.Attempt(number, 1, Retry)
			if a.Status != 0 || a.Number < 0 || a.Number > 1<<31-1 || a.Duration < 0 || a.Duration > longestAttempt ||
				len(a.Detail) > maxDetail+4 || strings.Contains(a.Detail, "\x00") || !utf8.ValidString(a.Detail) {
				t.Errorf("%+v of %+v", a, r)
			}
		}
	}
}

// TestAttempt_WhatComesBeforeARequestAnswersNone has a receiver send more than an answer,
// in every form that can wait for the next request.
func TestAttempt_WhatComesBeforeARequestAnswersNone(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		const fine, gone = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"
		ca := newAuthority(t)
		for _, version := range []struct {
			name   string
			config *tls.Config
		}{
			{"plain", nil},
			{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}},
			{"TLS 1.3", &tls.Config{MinVersion: tls.VersionTLS13}},
			{"TLS 1.3 without tickets", &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}},
		} {
			for name, say := range map[string]func(conn net.Conn, said func()){
				"the next answer in the same write": func(conn net.Conn, _ func()) { io.WriteString(conn, fine+gone) },
				"the next answer in another write":  func(conn net.Conn, _ func()) { io.WriteString(conn, fine); io.WriteString(conn, gone) },
				"the next answer a little later": func(conn net.Conn, _ func()) {
					io.WriteString(conn, fine)
					time.Sleep(20 * time.Millisecond)
					io.WriteString(conn, gone)
				},
				"one byte of it": func(conn net.Conn, said func()) {
					io.WriteString(conn, fine+"H")
					said()
					time.Sleep(200 * time.Millisecond)
					io.WriteString(conn, gone[1:])
				},
				"an early 200": func(conn net.Conn, _ func()) { io.WriteString(conn, fine+fine) },
				"a large one": func(conn net.Conn, _ func()) {
					io.WriteString(conn, fine+"HTTP/1.1 410 Gone\r\nX: "+strings.Repeat("x", 30000)+"\r\n\r\n")
				},
				"half a record, the rest of it later": halfARecord(fine, gone),
			} {
				t.Run(version.name+"/"+name, func(t *testing.T) {
					t.Parallel()
					var requests atomic.Int32
					spoken := make(chan struct{}, 8)
					receive := func(conn net.Conn, r *bufio.Reader) {
						said := sync.OnceFunc(func() { spoken <- struct{}{} })
						for first := true; readRequest(r) == nil; first = false {
							requests.Add(1)
							if first {
								say(conn, said)
								said()
							} else {
								time.Sleep(300 * time.Millisecond) // and then no answer at all
							}
						}
					}
					c := client.http(t)
					var url string
					if version.config == nil {
						url = rawReceiver(t, receive)
					} else {
						config := version.config.Clone()
						config.Certificates = []tls.Certificate{ca.local()}
						url = securedOver(t, config, func(conn *tls.Conn) { receive(conn, bufio.NewReader(conn)) })
						ca.trust(c)
					}
					for i := range 3 {
						e := testEndpoint(url)
						event := testEvent
						event.WebhookID = fmt.Sprint("evt_", i)
						a := c.deliver(t.Context(), e, event, time.Now())
						if a.status != http.StatusOK {
							t.Errorf("request %d: %+v", i, a)
						}
						select {
						case <-spoken:
						case <-time.After(patience):
							t.Fatal("the receiver got no request on a connection of its own")
						}
					}
					if n := requests.Load(); n != 3 {
						t.Errorf("%d requests came to answers, want 3: an answer was counted for a request that was not made or not answered", n)
					}
				})
			}
		}
	})
}

// heldConn delays all that is written after a number of bytes.
type heldConn struct {
	net.Conn
	hold atomic.Bool
	said func() // called while the rest is held back
	// pause is how long the rest is held back; zero for half a second.
	pause time.Duration
}

func (c *heldConn) Write(b []byte) (int, error) {
	if !c.hold.Swap(false) || len(b) < 10 {
		return c.Conn.Write(b)
	}
	if _, err := c.Conn.Write(b[:7]); err != nil {
		return 0, err
	}
	c.said()
	time.Sleep(cmp.Or(c.pause, 500*time.Millisecond))
	_, err := c.Conn.Write(b[7:])
	return len(b), err
}

// halfARecord answers, and begins a second answer in half a record, or half a
// line where there are no records.
func halfARecord(first, second string) func(net.Conn, func()) {
	return func(conn net.Conn, said func()) {
		io.WriteString(conn, first)
		if secure, ok := conn.(*tls.Conn); ok {
			held := secure.NetConn().(*heldConn)
			held.said = said
			held.hold.Store(true)
			io.WriteString(conn, second)
			return
		}
		held := &heldConn{Conn: conn, said: said}
		held.hold.Store(true)
		held.Write([]byte(second))
	}
}

// securedOver is secured over connections that can hold bytes back.
func securedOver(t *testing.T, config *tls.Config, f func(*tls.Conn)) (url string) {
	url = rawReceiver(t, func(conn net.Conn, r *bufio.Reader) {
		c := tls.Server(&heldConn{Conn: conn}, config)
		if c.HandshakeContext(t.Context()) == nil {
			f(c)
		}
	})
	return strings.Replace(url, "http:", "https:", 1)
}

// TestAttempt_NoAnswerReachesAnotherAccountsRequest has two accounts at one host.
func TestAttempt_NoAnswerReachesAnotherAccountsRequest(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		ca := newAuthority(t)
		for _, protocol := range []string{"plain", "TLS", "HTTP/2"} {
			t.Run(protocol, func(t *testing.T) {
				t.Parallel()
				var mu sync.Mutex
				accounts := map[string]map[string]bool{} // on each connection, by its remote address; guarded by mu
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					mu.Lock()
					defer mu.Unlock()
					if accounts[r.RemoteAddr] == nil {
						accounts[r.RemoteAddr] = map[string]bool{}
					}
					accounts[r.RemoteAddr][r.URL.Path] = true
				}))
				server.EnableHTTP2 = protocol == "HTTP/2"
				if protocol == "plain" {
					server.Start()
				} else {
					server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.local()}}
					server.StartTLS()
				}
				defer server.Close()
				c := ca.trust(client.http(t))
				for i := range 20 {
					e := testEndpoint(fmt.Sprintf("%s/%d", server.URL, i%4))
					e.ID, e.Account = int64(1+i%4), fmt.Sprint(i%4)
					if a := c.deliver(t.Context(), e, testEvent, time.Now()); a.status != http.StatusOK {
						t.Fatalf("%+v", a)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				if len(accounts) != 4 {
					t.Errorf("%d connections for 4 endpoints", len(accounts))
				}
				for conn, seen := range accounts {
					if len(seen) != 1 {
						t.Errorf("the connection from %s carried requests of %d accounts", conn, len(seen))
					}
				}
			})
		}
	})
}

func TestAttempt_ReceiversThatSpeakFirstAreGivenNoRequest(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		ca := newAuthority(t)
		for name, secure := range map[string]bool{"plain": false, "TLS": true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var requests atomic.Int32
				spoken := make(chan struct{}, 8)
				receive := func(conn net.Conn) {
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					spoken <- struct{}{}
					if readRequest(bufio.NewReader(conn)) == nil {
						requests.Add(1)
					}
				}
				c := client.http(t)
				var url string
				if secure {
					url = secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}}, func(conn *tls.Conn) { receive(conn) })
					ca.trust(c)
				} else {
					url = rawReceiver(t, func(conn net.Conn, _ *bufio.Reader) { receive(conn) })
				}
				// What it said is here before the request, however slow the machine is.
				dial := c.dialer.dial
				c.dialer.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					conn, err := dial(ctx, network, address)
					if err != nil || secure {
						return conn, err
					}
					<-spoken
					time.Sleep(20 * time.Millisecond)
					return conn, nil
				}
				a := c.deliver(t.Context(), testEndpoint(url), testEvent, time.Now())
				if secure { // it may come a moment after the handshake: then it is not told apart
					if a.failure != failSpokeFirst && a.status != 200 {
						t.Errorf("%+v", a)
					}
					return
				}
				if a.failure != failSpokeFirst || a.status != 0 || requests.Load() != 0 {
					t.Errorf("%+v, %d requests; want %q and none", a, requests.Load(), failSpokeFirst)
				}
			})
		}
	})
}

// TestAttempt_TLSRecordsWithoutDataKeepAConnection has a server renew its keys
// and send session tickets between requests.
func TestAttempt_TLSRecordsWithoutDataKeepAConnection(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		ca := newAuthority(t)
		var connections, requests atomic.Int32
		url := securedByHand(t, ca, func(w *recordWriter, r *bufio.Reader) {
			connections.Add(1)
			for readRequest(r) == nil {
				if n := requests.Add(1); n%2 == 0 {
					w.keyUpdate(n%4 == 0)
				}
				w.data("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				w.ticket()
				if requests.Load()%3 == 0 {
					w.keyUpdate(false)
				}
			}
		})
		c := ca.trust(client.http(t))
		for range 10 {
			if a := c.deliver(t.Context(), testEndpoint(url), testEvent, time.Now()); a.status != 200 {
				t.Fatalf("%+v", a)
			}
			time.Sleep(5 * time.Millisecond)
		}
		if connections.Load() != 1 {
			t.Errorf("%d connections for %d requests, want 1", connections.Load(), requests.Load())
		}
	})
}

// TestAttempt_HTTP2FloodsEndTheirConnection floods a connection with each kind of
// frame without meaning, before and after the status.
func TestAttempt_HTTP2FloodsEndTheirConnection(t *testing.T) {
	t.Parallel()
	onEachOfHTTP2(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		ca := newAuthority(t)
		for name, frame := range map[string]func(c http2Conn, s uint32) error{
			"WINDOW_UPDATE of the connection": func(c http2Conn, s uint32) error { return c.frame(8, 0, 0, code(1)...) },
			"WINDOW_UPDATE of the stream":     func(c http2Conn, s uint32) error { return c.frame(8, 0, s, code(1)...) },
			"PING":                            func(c http2Conn, s uint32) error { return c.frame(framePing, 0, 0, make([]byte, 8)...) },
			"PING answers":                    func(c http2Conn, s uint32) error { return c.frame(framePing, flagAck, 0, make([]byte, 8)...) },
			"SETTINGS":                        func(c http2Conn, s uint32) error { return c.frame(frameSettings, 0, 0) },
			"empty DATA":                      func(c http2Conn, s uint32) error { return c.frame(frameData, 0, s) },
			"PRIORITY":                        func(c http2Conn, s uint32) error { return c.frame(2, 0, s, 0, 0, 0, 0, 1) },
			"unknown frames":                  func(c http2Conn, s uint32) error { return c.frame(0xbb, 0, 0) },
			"RST_STREAM of others":            func(c http2Conn, s uint32) error { return c.frame(frameReset, 0, s+100, code(8)...) },
			"HEADERS of others":               func(c http2Conn, s uint32) error { return c.frame(frameHeaders, flagEndHeaders, s+100, 0x88) },
			"GOAWAY":                          func(c http2Conn, s uint32) error { return c.frame(frameGoAway, 0, 0, code(1<<31-1, 0)...) },
			"trailing HEADERS":                func(c http2Conn, s uint32) error { return c.frame(frameHeaders, flagEndHeaders, s, 0x88) },
		} {
			for _, status := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/after the status %v", name, status), func(t *testing.T) {
					t.Parallel()
					var sent atomic.Int64
					ended := make(chan struct{})
					receiver := &http2Receiver{at: frameData, f: func(c http2Conn, s uint32) {
						if status {
							c.frame(frameHeaders, flagEndHeaders, s, 0x88)
						}
						go func() {
							defer close(ended)
							for frame(c, s) == nil {
								sent.Add(1)
							}
						}()
					}}
					url := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}, NextProtos: []string{"h2"}}, receiver.serve)
					c := ca.trust(client.http(t))
					taken := countTaken(c)
					a := c.deliver(t.Context(), testEndpoint(url), testEvent, time.Now())
					status := status || name == "trailing HEADERS" // the first of them is an answer
					if status && a.status != 200 || !status && (a.status != 0 || a.failure != failFlood && a.failure != failHTTP2 && a.failure != failHTTP2NotTaken) {
						t.Errorf("%+v", a)
					}
					select {
					case <-ended:
					case <-time.After(time.Minute):
						t.Errorf("the connection is still open after %d frames, of which %d bytes were read", sent.Load(), taken.Load())
					}
					if n := taken.Load(); n > handshakeBytes+requestBytes+idleBytes {
						t.Errorf("%d bytes were read", n)
					}
				})
			}
		}
	})
}

// TestAttempt_TLSRecordsWithoutEndEndTheirConnection floods HTTP/1 over TLS
// beneath what HTTP sees.
func TestAttempt_TLSRecordsWithoutEndEndTheirConnection(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		ca := newAuthority(t)
		url := securedByHand(t, ca, func(w *recordWriter, r *bufio.Reader) {
			readRequest(r)
			for n := 0; w.keyUpdate(n%2 == 0) == nil; n++ {
				w.ticket()
			}
		})
		c := ca.trust(client.http(t))
		taken := countTaken(c)
		a := c.deliver(t.Context(), testEndpoint(url), testEvent, time.Now())
		if a.failure != failFlood && a.failure != failClosed { // crypto/tls counts some of them as well
			t.Errorf("%+v, want %q", a, failFlood)
		}
		if n := taken.Load(); n > handshakeBytes+requestBytes {
			t.Errorf("%d bytes were read", n)
		}
	})
}

// TestAttempt_HTTP2AnswersOnStreamsThatAreNotOpenAnswerNothing answers the next
// stream in advance.
func TestAttempt_HTTP2AnswersOnStreamsThatAreNotOpenAnswerNothing(t *testing.T) {
	t.Parallel()
	onEachOfHTTP2(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		ca := newAuthority(t)
		var early atomic.Bool
		receiver := &http2Receiver{at: frameData}
		receiver.f = func(c http2Conn, s uint32) {
			if early.Swap(true) {
				return // the second has no answer of its own
			}
			c.frame(frameHeaders, flagEndHeaders|flagEndStream, s, 0x88)
			for next := s + 2; next < s+20; next += 2 {
				c.frame(frameHeaders, flagEndHeaders|flagEndStream, next, literalStatus("410")...)
			}
		}
		url := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}, NextProtos: []string{"h2"}}, receiver.serve)
		c := ca.trust(client.http(t))
		if a := c.deliver(t.Context(), testEndpoint(url), testEvent, time.Now()); a.status != 200 {
			t.Fatalf("%+v", a)
		}
		time.Sleep(50 * time.Millisecond)
		overNetHTTP(c).ResponseHeaderTimeout = short
		if a := c.deliver(t.Context(), testEndpoint(url), testEvent, time.Now()); a.status != 0 {
			t.Errorf("%+v: an answer from before the request", a)
		}
	})
}

// recordWriter writes the records of a TLS 1.3 server itself, since crypto/tls does not
// let a test send session tickets and new keys at any moment.
type recordWriter struct {
	conn   net.Conn
	secret []byte
	seq    uint64
}

// securedByHand is secured with a server whose records f writes.
func securedByHand(t *testing.T, ca *authority, f func(*recordWriter, *bufio.Reader)) (url string) {
	config := &tls.Config{Certificates: []tls.Certificate{ca.local()}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
	url = rawReceiver(t, func(conn net.Conn, _ *bufio.Reader) {
		var keys bytes.Buffer
		own := config.Clone()
		own.KeyLogWriter = &keys
		c := tls.Server(conn, own)
		if c.HandshakeContext(t.Context()) != nil {
			return
		}
		if c.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
			t.Error("this machine prefers another cipher than the test knows")
			return
		}
		_, line, _ := strings.Cut(keys.String(), "SERVER_TRAFFIC_SECRET_0 ")
		_, text, _ := strings.Cut(strings.SplitN(line, "\n", 2)[0], " ")
		secret, err := hex.DecodeString(text)
		if err != nil {
			t.Error(err)
			return
		}
		f(&recordWriter{conn: conn, secret: secret}, bufio.NewReader(c))
	})
	return strings.Replace(url, "http:", "https:", 1)
}

// expand is HKDF-Expand-Label (RFC 8446, 7.1) without a context.
func expand(secret []byte, label string, length int) []byte {
	info := append([]byte{0, byte(length), byte(6 + len(label))}, "tls13 "+label...)
	key, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), length)
	if err != nil {
		panic(err)
	}
	return key
}

func (w *recordWriter) record(kind byte, data ...byte) error {
	block, err := aes.NewCipher(expand(w.secret, "key", 16))
	if err != nil {
		return err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return err
	}
	nonce := expand(w.secret, "iv", 12)
	for i := range 8 {
		nonce[4+i] ^= byte(w.seq >> (56 - 8*i))
	}
	w.seq++
	inner := append(data, kind)
	head := []byte{23, 3, 3, byte((len(inner) + 16) >> 8), byte(len(inner) + 16)}
	_, err = w.conn.Write(aead.Seal(head, nonce, inner, head))
	return err
}

func (w *recordWriter) data(text string) error { return w.record(23, []byte(text)...) }

// ticket sends a NewSessionTicket (RFC 8446, 4.6.1).
func (w *recordWriter) ticket() error {
	body := append([]byte{0, 0, 1, 0, 0, 0, 0, 0, 1, 7, 0, 16}, make([]byte, 16)...)
	body = append(body, 0, 0)
	return w.record(22, append([]byte{4, 0, 0, byte(len(body))}, body...)...)
}

// keyUpdate sends a KeyUpdate (RFC 8446, 4.6.3).
func (w *recordWriter) keyUpdate(asked bool) error {
	request := byte(0)
	if asked {
		request = 1
	}
	err := w.record(22, 24, 0, 0, 1, request)
	w.secret, w.seq = expand(w.secret, "traffic upd", 32), 0
	return err
}
