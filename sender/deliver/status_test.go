package deliver

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// The final status decides, whatever interim answers precede it, and whatever follows it.
func TestAttempt_TheStatusDecidesOverHTTP1(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		hint := "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"
		for name, c := range map[string]struct {
			answer string
			status int
			reset  bool
			limit  limit
		}{
			"103 before it":                      {hint + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, false, ""},
			"many before it":                     {strings.Repeat(hint+"HTTP/1.1 100 Continue\r\n\r\n", 20) + "HTTP/1.1 204 \r\n\r\n", 204, false, ""},
			"one with a bad header before it":    {"HTTP/1.1 103 Early Hints\r\nno colon\r\n bad\x00: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, false, limitInterim},
			"one with a long header before it":   {"HTTP/1.1 103 Early Hints\r\nLink: " + strings.Repeat("x", 20000) + "\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n", 202, false, ""},
			"100 behind two spaces before it":    {"HTTP/1.1  100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, false, ""},
			"100 of no version before it":        {"HTTP/0.0 100 \n\nHTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", 410, false, ""},
			"100 behind two spaces alone":        {"HTTP/1.1  100 Continue\r\n\r\n", 0, false, ""},
			"103, then a bad header":             {hint + "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", 200, false, limitInterim},
			"103, then a header without end":     {hint + "HTTP/1.1 200 OK\r\nx: " + strings.Repeat("y", 80<<10), 200, false, limitInterim},
			"a bad header":                       {"HTTP/1.1 200 OK\r\n\x01: x\r\n\r\n", 200, false, ""},
			"two lengths":                        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 200, false, ""},
			"a coding that nobody knows":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n", 200, false, ""},
			"a malformed chunk":                  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 200, false, ""},
			"malformed trailers":                 {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n", 200, false, ""},
			"103, then 500 and a bad header":     {hint + "HTTP/1.1 500 No\r\nno colon\r\n\r\n", 500, false, limitInterim},
			"a reset behind the status line":     {"HTTP/1.1 200 OK\r\n", 200, true, ""},
			"103, and a reset behind the status": {hint + "HTTP/1.1 200 OK\r\nx: y", 200, true, limitInterim},
			"103 alone":                          {hint, 0, false, ""},
			"half a status line":                 {hint + "HTTP/1.1 20", 0, false, ""},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				url := rawReceiver(t, func(conn net.Conn, r *bufio.Reader) {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					_, _ = io.WriteString(conn, c.answer)
					if c.reset {
						time.Sleep(50 * time.Millisecond)
						_ = conn.(*net.TCPConn).SetLinger(0)
					}
				})
				want := c.status
				if client.binds(c.limit) {
					want = 0
				}
				if a := client.http(t).deliver(t.Context(), testEndpoint(url), testEvent, time.Now()); a.status != want {
					t.Errorf("status %d (%q, %s), want %d", a.status, a.failure, a.detail, want)
				}
			})
		}
	})
}

func TestAttempt_TheStatusDecidesOverHTTP2(t *testing.T) {
	t.Parallel()
	onEachOfHTTP2(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		const ok, failed = 0x88, 0x8e
		hint := []byte{0x08, 3, '1', '0', '3'}
		field := func(name, value string) []byte {
			return append(append(append([]byte{0, byte(len(name))}, name...), byte(len(value))), value...)
		}
		header := func(c http2Conn, flags byte, s uint32, parts ...[]byte) {
			var block []byte
			for _, p := range parts {
				block = append(block, p...)
			}
			c.frame(frameHeaders, flags, s, block...)
		}
		long := append([]byte{0, 1, 'x', 0x7f, 0x80, 0x7f}, strings.Repeat("y", 127+127*128)...)
		for name, c := range map[string]struct {
			answer func(c http2Conn, s uint32)
			status int
		}{
			"103 before it": {func(c http2Conn, s uint32) {
				header(c, flagEndHeaders, s, hint)
				header(c, flagEndHeaders|flagEndStream, s, []byte{ok})
			}, 200},
			"103, then a bad name": {func(c http2Conn, s uint32) {
				header(c, flagEndHeaders, s, hint)
				header(c, flagEndHeaders|flagEndStream, s, []byte{ok}, field("Upper", "x"))
			}, 200},
			"a bad name": {func(c http2Conn, s uint32) { header(c, flagEndHeaders|flagEndStream, s, []byte{ok}, field("a b", "x")) }, 200},
			"a bad value": {func(c http2Conn, s uint32) {
				header(c, flagEndHeaders|flagEndStream, s, []byte{ok}, field("x", "a\x00b"))
			}, 200},
			"a pseudo header behind a field": {func(c http2Conn, s uint32) {
				header(c, flagEndHeaders|flagEndStream, s, []byte{ok}, field("x", "y"), field(":path", "/"))
			}, 200},
			"two lengths": {func(c http2Conn, s uint32) {
				header(c, flagEndHeaders|flagEndStream, s, []byte{ok}, field("content-length", "x"), field("content-length", "5"))
			}, 200},
			"a header that is too long": {func(c http2Conn, s uint32) {
				header(c, 0, s, []byte{ok})
				for i := range 5 {
					c.frame(frameContinuation, map[bool]byte{true: flagEndHeaders}[i == 4], s, long...)
				}
			}, 200},
			"padding, a priority, and a bad name": {func(c http2Conn, s uint32) {
				block := append([]byte{3, 0, 0, 0, 0, 1, ok}, field("A", "b")...)
				c.frame(frameHeaders, flagEndHeaders|flagEndStream|http2Padded|http2Priority, s, append(block, 0, 0, 0)...)
			}, 200},
			"a header without end": {func(c http2Conn, s uint32) { c.frame(frameHeaders, 0, s, ok) }, 200},
			"a reset behind it": {func(c http2Conn, s uint32) {
				header(c, flagEndHeaders, s, []byte{ok})
				c.frame(frameReset, 0, s, code(2)...)
			}, 200},
			"nonsense behind it": {func(c http2Conn, s uint32) {
				header(c, flagEndHeaders, s, []byte{ok})
				io.WriteString(c, "nonsense nonsense")
			}, 200},
			"malformed trailers": {func(c http2Conn, s uint32) {
				header(c, flagEndHeaders, s, []byte{ok})
				header(c, flagEndHeaders|flagEndStream, s, field("A", "b"))
			}, 200},
			"500 and a bad name": {func(c http2Conn, s uint32) {
				header(c, flagEndHeaders|flagEndStream, s, []byte{failed}, field("A", "b"))
			}, 500},
			"of another stream":            {func(c http2Conn, s uint32) { header(c, flagEndHeaders|flagEndStream, s+2, []byte{ok}) }, 0},
			"103 alone, and a bad name":    {func(c http2Conn, s uint32) { header(c, flagEndHeaders, s, hint, field("A", "b")) }, 0},
			"no status":                    {func(c http2Conn, s uint32) { header(c, flagEndHeaders|flagEndStream, s, field("x", "y")) }, 0},
			"a status that is no number":   {func(c http2Conn, s uint32) { header(c, flagEndHeaders|flagEndStream, s, literalStatus("2xx")) }, 0},
			"a status of no class that is": {func(c http2Conn, s uint32) { header(c, flagEndHeaders|flagEndStream, s, literalStatus("099")) }, 0},
			"a second answer does not count": {func(c http2Conn, s uint32) {
				header(c, flagEndHeaders, s, []byte{failed})
				header(c, flagEndHeaders|flagEndStream, s, []byte{ok})
			}, 500},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ca := newAuthority(t)
				receiver := &http2Receiver{at: frameData, f: c.answer}
				url := secured(t, &tls.Config{Certificates: []tls.Certificate{ca.local()}, NextProtos: []string{"h2"}}, receiver.serve)
				var about []limits
				if c.status == 0 || name == "a header without end" { // more might come
					about = []limits{shortHeader}
				}
				if a := ca.trust(client.http(t, about...)).deliver(t.Context(), testEndpoint(url), testEvent, time.Now()); a.status != c.status {
					t.Errorf("status %d (%q, %s), want %d", a.status, a.failure, a.detail, c.status)
				}
			})
		}
	})
}

// FuzzFrames reads the statuses of answers from raw bytes, in pieces of any size. The
// pieces change nothing, and if net/http reads an answer too, it has the same status.
func FuzzFrames(f *testing.F) {
	end := byte(flagEndHeaders | flagEndStream)
	fine := frameOf(frameHeaders, end, 1, 0x88)
	padded := append([]byte{3}, literalStatus("410")...)
	for _, said := range [][]byte{
		fine, append(slices.Clone(fine), frameOf(frameHeaders, end, 3, literalStatus("503")...)...),
		frameOf(frameHeaders, end|http2Padded, 1, append(padded, 0, 0, 0)...), frameOf(frameHeaders, end|http2Padded, 1, 200, 0x88),
		frameOf(frameHeaders, end|http2Priority, 1, 0, 0, 0, 0, 1, 0x88), frameOf(frameHeaders, end|http2Priority, 1, 0, 0),
		frameOf(frameHeaders, end|http2Priority|http2Padded, 1, 1, 0, 0, 0, 0, 1, 0x88, 0), frameOf(frameHeaders, end|http2Padded, 1),
		append(frameOf(frameHeaders, 0, 1, 0x08, 3), frameOf(frameContinuation, flagEndHeaders, 1, '2', '0', '0')...),
		append(frameOf(frameHeaders, 0, 1), frameOf(frameContinuation, flagEndHeaders, 1, 0x88)...),
		append(frameOf(frameData, 0, 1, make([]byte, 300)...), fine...), frameOf(frameHeaders, end, 1, 0x3f, 0xff, 0xff, 0x7f, 0x88),
		append(frameOf(frameHeaders, flagEndHeaders, 1, 0x08, 3, '1', '0', '3'), fine...), frameOf(frameHeaders, end, 1, 0x48, 3, '2', '0', '4', 0xbe),
		frameOf(frameHeaders, end, 1, append(literalStatus("200"), literalStatus("500")...)...), {0xff, 0xff, 0xff, 1, end, 0, 0, 0, 1, 0x88},
		append(frameOf(frameHeaders, end, 1, 0x88, 0, 1, 'x', 0x7f), fine...), []byte(strings.Repeat("\x00", 100)),
	} {
		f.Add(said, uint16(1))
		f.Add(said, uint16(7))
	}
	f.Fuzz(func(t *testing.T, said []byte, size uint16) {
		if len(said) > 32<<10 { // beyond, the bounds of the two differ
			return
		}
		read := func(size int) map[uint32]int {
			r := newFrames(nil)
			r.out.header(math.MaxInt32) // any stream is open
			for piece := range slices.Chunk(said, max(size, 1)) {
				r.in.follow(slices.Clone(piece))
			}
			return r.statuses
		}
		statuses := read(len(said))
		if pieces := read(int(size)); !maps.Equal(statuses, pieces) {
			t.Fatalf("%v whole, %v in pieces of %d", statuses, pieces, size)
		}
		for stream, status := range statuses {
			if status < 200 || status > 999 {
				t.Errorf("status %d of stream %d", status, stream)
			}
		}
		seen := map[uint32]bool{}
		theirs := http2.NewFramer(io.Discard, bytes.NewReader(said))
		theirs.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		for len(statuses) < mostStatuses {
			frame, err := theirs.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.PushPromiseFrame:
				return // net/http ends the connection
			case *http2.MetaHeadersFrame:
				status, ok := statusOf(frame.PseudoValue("status"))
				if stream := frame.StreamID; ok && status >= 200 && !frame.Truncated && !seen[stream] {
					seen[stream] = true
					if statuses[stream] != status {
						t.Errorf("stream %d has the status %d, want %d", stream, statuses[stream], status)
					}
				}
			}
		}
	})
}
