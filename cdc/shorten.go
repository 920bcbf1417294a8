package cdc

import (
	"bytes"
	"encoding/binary"
	"io"
	"sync/atomic"
)

// The bounds of what the shortener keeps of a message: a value, which may be a key or an
// owner, and a row of values.
const (
	keptValueBytes  = 64 << 10
	keptRowBytes    = 4 << 20
	keptPrefixBytes = 1 << 10
	// shortenReads is the size of a read of a message that is being shortened.
	shortenReads = 64 << 10
)

// copyShortened replaces copyWAL in a shortened message; the message's original length
// follows. Servers send no such kind.
const copyShortened = 'W'

// valueDropped marks a dropped value in a tuple of a shortened message. The protocol has
// no such kind.
const valueDropped = 'x'

// shortener reads between the connection and the protocol's reader. It passes the
// server's messages unchanged, except a message that is longer than limit: while that
// arrives, it keeps the small values and drops the others, so that no row takes more
// memory than limit.
//
// A read that timed out may be repeated: the shortener continues where it was.
type shortener struct {
	src      io.Reader
	limit    int
	arrived  *atomic.Uint64 // counts bytes from the server
	pushed   []byte         // read from src and not yet processed
	out      []byte         // to be returned first
	body     int            // bytes of the current message that pass unchanged
	small    [512]byte      // for a caller's buffer that is too short for a header
	shortens *shortening    // the message that is being shortened; nil for none
}

const headerBytes = 5 // of a message: kind and length

// Read implements [io.Reader].
func (s *shortener) Read(p []byte) (int, error) {
	for {
		if len(s.out) > 0 {
			n := copy(p, s.out)
			s.out = s.out[n:]
			return n, nil
		}
		if s.shortens != nil {
			if err := s.shorten(); err != nil {
				return 0, err
			}
			continue
		}
		buf := p
		if len(p) < len(s.small) {
			buf = s.small[:]
		}
		n, err := s.read(buf)
		passed := s.pass(buf[:n])
		if len(p) < len(s.small) {
			s.out = buf[:passed]
			if passed > 0 {
				continue
			}
		}
		if passed > 0 || err != nil && s.shortens == nil {
			return passed, err
		}
	}
}

// read reads the pushed-back bytes and then from src.
func (s *shortener) read(p []byte) (int, error) {
	held := copy(p, s.pushed)
	if held > 0 && held < len(s.pushed) || held >= headerBytes {
		s.pushed = append(s.pushed[:0], s.pushed[held:]...)
		return held, nil
	}
	n, err := s.src.Read(p[held:])
	s.arrived.Add(uint64(n))
	if n == 0 && err != nil {
		return 0, err // the pushed-back bytes stay
	}
	s.pushed = s.pushed[:0]
	return held + n, nil
}

// pass returns how many bytes of p pass unchanged, and pushes back the rest.
func (s *shortener) pass(p []byte) int {
	at := 0
	for at < len(p) {
		if s.body > 0 {
			n := min(s.body, len(p)-at)
			s.body -= n
			at += n
			continue
		}
		if len(p)-at < headerBytes {
			s.pushed = append(s.pushed[:0], p[at:]...)
			return at
		}
		kind, body := p[at], int(binary.BigEndian.Uint32(p[at+1:]))-4
		if kind == 'd' && body > s.limit {
			s.pushed = append(s.pushed[:0], p[at+headerBytes:]...)
			s.shortens = &shortening{rest: body, size: body}
			return at
		}
		s.body = max(body, 0)
		at += headerBytes
	}
	return at
}

// shortening is a message that is being shortened.
type shortening struct {
	buf        []byte
	start, end int // of the unprocessed bytes in buf
	rest       int // bytes of the message that were not read into buf
	size       int // of the whole message
	kept       []byte

	next    part
	columns int // left in the tuple
	drop    int // bytes to drop
}

// part is the next part of a message.
type part byte

const (
	partHeader  part = iota // of the replication protocol, and the change's kind
	partTable               // the relation of a row
	partTuple               // the mark of a tuple and its number of columns
	partColumn              // one value
	partLogical             // a logical message up to its prefix
	partRest                // all of it is dropped
)

// shorten processes the current message up to its end or to an error of the connection.
func (s *shortener) shorten() error {
	m := s.shortens
	for {
		for m.step() {
		}
		if m.rest == 0 {
			break // the rest is not a complete part
		}
		room := m.room()
		n, err := s.readMore(room[:min(len(room), m.rest)])
		m.end += n
		m.rest -= n
		if n == 0 && err != nil {
			return err
		}
	}
	s.out = binary.BigEndian.AppendUint32([]byte{'d'}, uint32(len(m.kept)+4))
	s.out = append(s.out, m.kept...)
	s.shortens = nil
	return nil
}

// readMore reads the pushed-back bytes, or else from src.
func (s *shortener) readMore(p []byte) (int, error) {
	if n := copy(p, s.pushed); n > 0 {
		s.pushed = append(s.pushed[:0], s.pushed[n:]...)
		return n, nil
	}
	n, err := s.src.Read(p)
	s.arrived.Add(uint64(n))
	return n, err
}

// room returns free space of buf for more of the message.
func (m *shortening) room() []byte {
	switch {
	case m.start == m.end:
		m.start, m.end = 0, 0
	case m.end == len(m.buf):
		m.end = copy(m.buf, m.buf[m.start:m.end])
		m.start = 0
	}
	if m.end == len(m.buf) {
		m.buf = append(m.buf, make([]byte, max(len(m.buf), shortenReads))...)
	}
	return m.buf[m.end:]
}

func (m *shortening) in() []byte { return m.buf[m.start:m.end] }

// take removes n bytes from the input; nil if there are fewer.
func (m *shortening) take(n int) []byte {
	if m.end-m.start < n {
		return nil
	}
	m.start += n
	return m.buf[m.start-n : m.start]
}

// keep moves n bytes from the input to kept; nil if there are fewer.
func (m *shortening) keep(n int) []byte {
	taken := m.take(n)
	m.kept = append(m.kept, taken...)
	return taken
}

// step processes one part; false if that is not in the input yet.
func (m *shortening) step() bool {
	n := min(m.drop, m.end-m.start)
	m.start += n
	m.drop -= n
	if m.start == m.end {
		return false
	}
	switch m.next {
	case partHeader:
		return m.header()
	case partTable:
		if m.keep(4) == nil {
			return false
		}
		m.next = partTuple
	case partTuple:
		start := m.keep(3)
		if start == nil {
			return false
		}
		m.columns = int(binary.BigEndian.Uint16(start[1:]))
		if m.next = partColumn; m.columns == 0 {
			m.next = partTuple
		}
	case partColumn:
		return m.column()
	case partLogical:
		return m.logical()
	case partRest:
		m.drop = m.rest + m.end - m.start
	}
	return true
}

func (m *shortening) header() bool {
	const header = 1 + 8 + 8 + 8 // kind, start, end, clock
	start := m.take(header + 1)
	if start == nil {
		return false
	}
	m.kept = binary.BigEndian.AppendUint64([]byte{copyShortened}, uint64(m.size))
	m.kept = append(m.kept, start[1:]...)
	switch start[header] {
	case msgInsert, msgUpdate, msgDelete:
		m.next = partTable
	case msgLogical:
		m.next = partLogical
	default:
		m.next = partRest
	}
	return true
}

func (m *shortening) column() bool {
	kind := m.in()[0]
	if kind == 'n' || kind == 'u' {
		m.keep(1)
	} else {
		const start = 1 + 4 // kind and length
		if len(m.in()) < start {
			return false
		}
		size := int(binary.BigEndian.Uint32(m.in()[1:]))
		if size > keptValueBytes || len(m.kept)+size > keptRowBytes {
			m.kept = append(m.kept, valueDropped)
			m.take(start)
			m.drop = size
		} else if m.keep(start+size) == nil {
			return false
		}
	}
	if m.columns--; m.columns == 0 {
		m.next = partTuple
	}
	return true
}

// logical keeps flags, position and prefix of a logical message. A prefix longer than
// keptPrefixBytes is another application's.
func (m *shortening) logical() bool {
	const start = 1 + 8 // flags, position
	if len(m.in()) < start+keptPrefixBytes {
		return false // a shortened message is longer
	}
	m.keep(start)
	prefix := m.in()[:keptPrefixBytes]
	if end := bytes.IndexByte(prefix, 0); end >= 0 {
		prefix = prefix[:end]
	}
	m.kept = append(append(m.kept, prefix...), 0)
	m.next = partRest
	return true
}
