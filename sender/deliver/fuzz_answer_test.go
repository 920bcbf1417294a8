package deliver

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// hurried is a destination that gives a receiver little time, and dials f whatever
// the address is.
func hurried(f func(net.Conn)) *HTTP {
	c := newHTTP(Config{
		Version: "test", AttemptTimeout: 100 * time.Millisecond, HeaderTimeout: 50 * time.Millisecond,
		ConnectTimeout: time.Second, TLSTimeout: time.Second,
	}.WithDefaults())
	c.dialer.dial = func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			f(theirs)
		}()
		return ours, nil
	}
	return c
}

// checkAnswer checks that any answer gives an outcome within bounds.
func checkAnswer(t *testing.T, a answer, began time.Time) {
	t.Helper()
	now := time.Now()
	if took := now.Sub(began); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
	if a.status != 0 && (isInterim(a.status) || a.status > 999) {
		t.Errorf("status %d", a.status)
	}
	if (a.status == 0) == (a.failure == "") {
		t.Errorf("status %d and failure %q", a.status, a.failure)
	}
	if a.failure != "" && !slices.Contains(failures, a.failure) {
		t.Errorf("failure %q is no failure", a.failure)
	}
	if a.failure.own() {
		t.Errorf("failure %q (%s) is not this machine's", a.failure, a.detail)
	}
	res := a.result(began, now)
	if res.After < 0 || res.After > MaxRetryAfter {
		t.Errorf("a wait of %v", res.After)
	}
	if delivered := res.Outcome == Delivered; delivered != (a.status >= 200 && a.status < 300) {
		t.Errorf("status %d is %q", a.status, res.Outcome)
	}
	kept := res.Attempt(1, 1, res.Outcome)
	if kept.Status < 0 || kept.Status > math.MaxInt32 || len(kept.Detail) > maxDetail+4 || !utf8.ValidString(kept.Detail) ||
		strings.ContainsAny(kept.Detail, "\x00\x1b\n") || strings.Contains(kept.Detail, strings.TrimPrefix(secretA, "whsec_")) {
		t.Errorf("stored as %+v", kept)
	}
}

// FuzzAnswerHTTP1 has a receiver answer a request with raw bytes. They answer at most that
// request, and not the next one on its connection.
func FuzzAnswerHTTP1(f *testing.F) {
	const fine = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	for _, status := range unbelievable {
		f.Add([]byte("HTTP/1.1 "+status+" OK\r\nContent-Length: 0\r\n\r\n"), false)
	}
	for _, text := range []string{
		"", fine, fine + "HTTP/1.1 410 Gone\r\n\r\n", fine + "H", "HTTP/1.1 2", "220 mail ESMTP\r\n", "\x16\x03\x01\x00\x05",
		"HTTP/1.1 100 Continue\r\n\r\n" + fine, strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 50), "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nxx", "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 503 No\r\nRetry-After: 99999999999999999999\r\n\r\n", "HTTP/1.1 429 No\r\nRetry-After: -5\r\n\r\n",
		"HTTP/1.1 503 No\r\nDate: Mon, 01 Jan 0001 00:00:00 GMT\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 302 No\r\nLocation: //[::1\r\n\r\n", "HTTP/1.1 302 No\r\nLocation: http://a/\x1b[2J\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 500 No\r\nX: " + strings.Repeat("x", 4000) + "\r\n\r\n", "HTTP/1.1 500 No\r\n" + strings.Repeat("X: y\r\n", 1000) + "\r\n",
		"HTTP/1.1 410 Gone\nContent-Length: 0\n\n", "HTTP/1.0 200 OK\r\n\r\nbody", "HTTP/9.9 200 OK\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n",
		"HTTP/1.1  100 Continue\r\n\r\n" + fine, "HTTP/0.0 100 \n\n0000000000000000",
		"HTTP/1.1 500 No\r\nContent-Length: 17\r\n\r\n" + `{"type":"insert"}`,
	} {
		f.Add([]byte(text), false)
		f.Add([]byte(text), true)
	}
	f.Fuzz(func(t *testing.T, said []byte, stays bool) {
		c := hurried(func(conn net.Conn) {
			r := bufio.NewReader(conn)
			if readRequest(r) != nil {
				return
			}
			if _, err := conn.Write(said); err == nil && stays {
				readRequest(r) // and no answer to that
			}
		})
		defer c.Close()
		began := time.Now()
		checkAnswer(t, c.deliver(t.Context(), testEndpoint("http://192.0.2.1/"), testEvent, began), began)
		own(c).pool.mu.Lock()
		kept := own(c).pool.count
		own(c).pool.mu.Unlock()
		if kept == 0 {
			return
		}
		dialled := false
		dial := c.dialer.dial
		c.dialer.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled = true
			return dial(ctx, network, address)
		}
		if a := c.deliver(t.Context(), testEndpoint("http://192.0.2.1/"), testEvent, time.Now()); a.status != 0 && !dialled {
			t.Errorf("%+v answers a request that had no answer", a)
		}
	})
}

// frameOf is a frame of HTTP/2 as bytes.
func frameOf(kind, flags byte, stream uint32, payload ...byte) []byte {
	head := make([]byte, 9, 9+len(payload))
	binary.BigEndian.PutUint32(head, uint32(len(payload))<<8|uint32(kind))
	head[4] = flags
	binary.BigEndian.PutUint32(head[5:], stream)
	return append(head, payload...)
}

// FuzzAnswerHTTP2 has a receiver send raw bytes in place of frames once a request
// is there.
func FuzzAnswerHTTP2(f *testing.F) {
	end := byte(flagEndHeaders | flagEndStream)
	for _, status := range append(slices.Clone(unbelievable), "200", "410", "503", "103", "101", "999") {
		f.Add(frameOf(frameHeaders, end, 1, literalStatus(status)...))
	}
	fine := frameOf(frameHeaders, flagEndHeaders, 1, 0x88)
	for _, frames := range [][]byte{
		nil, fine, append(slices.Clone(fine), frameOf(frameData, flagEndStream, 1, []byte("body")...)...),
		frameOf(frameHeaders, end, 3, 0x88), frameOf(frameHeaders, end, 0, 0x88), frameOf(frameHeaders, end, 2, 0x88), frameOf(frameHeaders, end, math.MaxInt32, 0x88),
		frameOf(frameGoAway, 0, 0, code(0, 0)...), frameOf(frameGoAway, 0, 0, code(math.MaxUint32, 11)...), frameOf(frameGoAway, 0, 1, code(1, 0)...),
		frameOf(frameSettings, 0, 0, append([]byte{0, 4}, code(math.MaxUint32)...)...), frameOf(frameSettings, 0, 0, append([]byte{0, 5}, code(1)...)...),
		frameOf(frameSettings, 0, 0, append([]byte{0, 1}, code(math.MaxUint32)...)...), frameOf(frameSettings, 0, 0, append([]byte{0, 3}, code(0)...)...),
		frameOf(frameSettings, flagAck, 0), frameOf(frameSettings, 0, 1), frameOf(frameSettings, 0, 0, 1, 2, 3),
		frameOf(8, 0, 0, code(math.MaxInt32)...), frameOf(8, 0, 1, code(0)...), frameOf(8, 0, 99, code(1)...),
		slices.Repeat(frameOf(8, 0, 0, code(1)...), 100), slices.Repeat(frameOf(framePing, 0, 0, make([]byte, 8)...), 100), slices.Repeat(frameOf(frameData, 0, 1), 100),
		frameOf(framePing, 0, 1, make([]byte, 8)...), frameOf(frameReset, 0, 1, code(7)...), frameOf(frameReset, 0, 0, code(0)...),
		frameOf(5, flagEndHeaders, 1, code(2)...), frameOf(frameContinuation, flagEndHeaders, 1, 0x88), frameOf(frameHeaders, 0, 1, 0x88),
		append(frameOf(frameHeaders, flagEndHeaders, 1, 0x08, 3, '1', '0', '3'), fine...), {0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1}, []byte("HTTP/1.1 200 OK\r\n\r\n"),
		frameOf(frameHeaders, end, 1, append([]byte{0x88, 0, 11}, "retry-after\x1499999999999999999999"...)...),
	} {
		f.Add(frames)
	}
	ca := newAuthority(f)
	config := &tls.Config{Certificates: []tls.Certificate{ca.issue(certificateFor("192.0.2.1"))}, NextProtos: []string{"h2"}}
	f.Fuzz(func(t *testing.T, said []byte) {
		c := ca.trust(hurried(nil))
		defer c.Close()
		c.dialer.dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			listener, err := net.Listen(network, "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			defer listener.Close()
			ours, err := net.Dial(network, listener.Addr().String())
			if err != nil {
				return nil, err
			}
			theirs, err := listener.Accept()
			if err != nil {
				return nil, err
			}
			resets(theirs) // thousands of them must not linger
			go func() {
				defer theirs.Close()
				secure := tls.Server(theirs, config)
				receiver := &http2Receiver{at: frameData, f: func(c http2Conn, _ uint32) { c.Write(said) }}
				_ = secure.SetDeadline(time.Now().Add(time.Second))
				if secure.HandshakeContext(ctx) == nil {
					receiver.serve(secure)
				}
			}()
			return ours, nil
		}
		began := time.Now()
		checkAnswer(t, c.deliver(t.Context(), testEndpoint("https://192.0.2.1/"), testEvent, began), began)
	})
}
