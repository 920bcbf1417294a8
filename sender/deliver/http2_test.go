package deliver

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The frames of these tests (RFC 9113, 6).
const (
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameSettings     = 4
	framePing         = 6
	frameGoAway       = 7
	frameContinuation = 9

	flagEndStream  = 1
	flagAck        = 1
	flagEndHeaders = 4
)

// http2Conn is a connection that speaks HTTP/2 frame by frame.
type http2Conn struct{ net.Conn }

func (c http2Conn) frame(kind, flags byte, stream uint32, payload ...byte) error {
	head := make([]byte, 9, 9+len(payload))
	binary.BigEndian.PutUint32(head, uint32(len(payload))<<8|uint32(kind))
	head[4] = flags
	binary.BigEndian.PutUint32(head[5:], stream)
	_, err := c.Write(append(head, payload...))
	return err
}

func (c http2Conn) next() (kind, flags byte, stream uint32, err error) {
	head := make([]byte, 9)
	if _, err = io.ReadFull(c, head); err != nil {
		return 0, 0, 0, err
	}
	_, err = io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head)>>8))
	return head[3], head[4], binary.BigEndian.Uint32(head[5:]) & 0x7fffffff, err
}

// code is a 32-bit number in a frame.
func code(values ...uint32) (b []byte) {
	for _, v := range values {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// http2Receiver reads requests and has f answer each, at the kind of frame that at names.
type http2Receiver struct {
	settings []byte
	at       byte
	f        func(c http2Conn, stream uint32)
	requests atomic.Int32
}

func (r *http2Receiver) serve(conn *tls.Conn) {
	c := http2Conn{conn}
	if _, err := io.CopyN(io.Discard, c, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return
	}
	if c.frame(frameSettings, 0, 0, r.settings...) != nil {
		return
	}
	for {
		kind, flags, stream, err := c.next()
		if err != nil {
			return
		}
		if kind == frameHeaders {
			r.requests.Add(1)
		}
		switch {
		case kind == frameSettings && flags&flagAck == 0:
			c.frame(frameSettings, flagAck, 0)
		case kind == r.at && (kind == frameHeaders || flags&flagEndStream != 0):
			r.f(c, stream)
		}
	}
}

func TestAttempt_HTTP2ReceiversThatMisbehaveAreNamedAndBounded(t *testing.T) {
	t.Parallel()
	onEachOfHTTP2(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		const status200, status500 = 0x88, 0x8e // of the static table (RFC 7541, A)
		flood := func(c http2Conn, kind, flags byte, stream uint32, payload ...byte) {
			for c.frame(kind, flags, stream, payload...) == nil {
			}
		}
		for _, m := range []struct {
			name     string
			receiver *http2Receiver
			status   int
			failure  failure
			detail   string
		}{
			{"answers", &http2Receiver{at: frameData, f: func(c http2Conn, s uint32) {
				c.frame(frameHeaders, flagEndHeaders|flagEndStream, s, status200)
			}}, 200, "", ""},
			{"fails", &http2Receiver{at: frameData, f: func(c http2Conn, s uint32) {
				c.frame(frameHeaders, flagEndHeaders|flagEndStream, s, status500)
			}}, 500, "", "HTTP 500"},
			{"GOAWAY before the request was taken", &http2Receiver{at: frameHeaders, f: func(c http2Conn, _ uint32) {
				c.frame(frameGoAway, 0, 0, code(0, 0)...)
				c.Close()
			}}, 0, failHTTP2NotTaken, "GOAWAY"},
			{"GOAWAY with an error", &http2Receiver{at: frameData, f: func(c http2Conn, s uint32) {
				c.frame(frameGoAway, 0, 0, code(s, 0xb)...) // ENHANCE_YOUR_CALM
				c.Close()
			}}, 0, failHTTP2, "GOAWAY"},
			{"REFUSED_STREAM", &http2Receiver{at: frameData, f: func(c http2Conn, s uint32) {
				c.frame(frameReset, 0, s, code(7)...)
			}}, 0, failHTTP2NotTaken, "REFUSED_STREAM"},
			{"REFUSED_STREAM amid the request", &http2Receiver{at: frameHeaders, settings: append([]byte{0, 4}, code(0)...), f: func(c http2Conn, s uint32) {
				c.frame(frameReset, 0, s, code(7)...)
			}}, 0, failHTTP2NotTaken, "REFUSED_STREAM"},
			{"resets the stream", &http2Receiver{at: frameData, f: func(c http2Conn, s uint32) {
				c.frame(frameReset, 0, s, code(2)...) // INTERNAL_ERROR
			}}, 0, failHTTP2, "INTERNAL_ERROR"},
			{"never answers", &http2Receiver{at: frameData, f: func(http2Conn, uint32) {}}, 0, failTimeoutHeader, "awaiting the answer"},
			{"closes", &http2Receiver{at: frameData, f: func(c http2Conn, _ uint32) { c.Close() }}, 0, failClosed, ""},
			{"nonsense", &http2Receiver{at: frameData, f: func(c http2Conn, _ uint32) {
				io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			}}, 0, failHTTP2, ""},
			{"an endless header", &http2Receiver{at: frameData, f: func(c http2Conn, s uint32) {
				c.frame(frameHeaders, 0, s, status200)
				line := append([]byte{0, 1, 'x', 0x7f, 0x80, 0x7f}, strings.Repeat("y", 127+127*128)...)
				flood(c, frameContinuation, 0, s, line...)
			}}, 200, "", ""},
			{"endless interim answers", &http2Receiver{at: frameData, f: func(c http2Conn, s uint32) {
				flood(c, frameHeaders, flagEndHeaders, s, 0x08, 3, '1', '0', '3')
			}}, 0, failHTTP2, ""},
			{"an endless body", &http2Receiver{at: frameData, f: func(c http2Conn, s uint32) {
				c.frame(frameHeaders, flagEndHeaders, s, status200)
				go flood(c, frameData, 0, s, make([]byte, 16000)...)
			}}, 200, "", ""},
			{"pings without end", &http2Receiver{at: frameData, f: func(c http2Conn, _ uint32) {
				go flood(c, framePing, 0, 0, make([]byte, 8)...)
			}}, 0, failFlood, ""},
		} {
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				ca := newAuthority(t)
				url := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}, NextProtos: []string{"h2"}}, m.receiver.serve)
				var about []limits
				if m.failure == failTimeoutHeader {
					about = []limits{shortHeader}
				}
				c := ca.trust(client.http(t, about...))
				atMost(t, tooLong, func() {
					before := m.receiver.requests.Load()
					a := c.deliver(t.Context(), testEndpoint(url), testEvent, time.Now())
					if a.status != m.status || a.failure != m.failure || !strings.Contains(a.detail, m.detail) {
						t.Errorf("status %d, failure %q (%s); want %d, %q (%s)", a.status, a.failure, a.detail, m.status, m.failure, m.detail)
					}
					if n := m.receiver.requests.Load() - before; n != 1 {
						t.Errorf("%d requests for one attempt", n)
					}
				})
			})
		}
	})
}

func TestAttempt_HTTP2ReceiverWithAWindowOfZero(t *testing.T) {
	t.Parallel()
	onEachOfHTTP2(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		ca := newAuthority(t)
		receiver := &http2Receiver{settings: append([]byte{0, 4}, code(0)...), at: frameData, f: func(http2Conn, uint32) {}}
		url := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}, NextProtos: []string{"h2"}}, receiver.serve)
		c := ca.trust(client.http(t, shortAttempt))
		event := testEvent
		event.Body = make([]byte, 1<<20) // more than a window as it is before the settings come
		a := c.deliver(t.Context(), testEndpoint(url), event, time.Now())
		if a.failure != failTimeoutSend || receiver.requests.Load() != 1 {
			t.Errorf("failure %q (%s), %d requests", a.failure, a.detail, receiver.requests.Load())
		}
	})
}

func TestAttempt_HTTP2ConnectionThatGoesAwayIsNotUsedAgain(t *testing.T) {
	t.Parallel()
	onEachOfHTTP2(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		ca := newAuthority(t)
		receiver := &http2Receiver{at: frameData, f: func(c http2Conn, s uint32) {
			c.frame(frameHeaders, flagEndHeaders|flagEndStream, s, 0x88)
			c.frame(frameGoAway, 0, 0, code(s, 0)...) // as servers do after so many requests
		}}
		url := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}, NextProtos: []string{"h2"}}, receiver.serve)
		c := ca.trust(client.http(t))
		for range 5 {
			if a := c.deliver(t.Context(), testEndpoint(url), testEvent, time.Now()); a.status != 200 && a.failure != failHTTP2NotTaken {
				t.Errorf("%+v", a)
			}
		}
		if n := receiver.requests.Load(); n > 5 {
			t.Errorf("%d requests for 5 attempts", n)
		}
	})
}
