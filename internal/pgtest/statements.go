package pgtest

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
)

// CountStatements puts a relay between the server and what opens db.URL afterwards. It
// counts the statements that go through it as they are sent; the statistics of PostgreSQL
// may know of them ten seconds later.
func (db *DB) CountStatements(tb testing.TB) *atomic.Int64 {
	tb.Helper()
	target, err := url.Parse(db.URL)
	if err != nil {
		tb.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = listener.Close() })
	count := &atomic.Int64{}
	server := target.Host
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server)
			if err != nil {
				_ = near.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(near, far)
				_ = near.Close()
			}()
			go func() {
				countMessages(far, near, count)
				_ = far.Close()
			}()
		}
	}()
	target.Host = listener.Addr().String()
	db.URL = target.String()
	return count
}

// countMessages relays what a client sends, and counts each Query and Execute. Messages
// have no type until the client has sent its StartupMessage (PostgreSQL's documentation,
// "Message Formats").
func countMessages(to io.Writer, from io.Reader, count *atomic.Int64) {
	const version3, length, longest = 3 << 16, 4, 1 << 30
	in := bufio.NewReader(from)
	for started := false; ; {
		header := make([]byte, length)
		if started {
			header = make([]byte, 1+length)
		}
		if _, err := io.ReadFull(in, header); err != nil {
			return
		}
		size := binary.BigEndian.Uint32(header[len(header)-length:])
		if size < length || size > longest {
			return
		}
		body := make([]byte, size-length)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		switch {
		case !started:
			started = len(body) >= length && binary.BigEndian.Uint32(body) == version3
		case header[0] == 'Q' || header[0] == 'E':
			count.Add(1)
		}
		if _, err := to.Write(append(header, body...)); err != nil {
			return
		}
	}
}
