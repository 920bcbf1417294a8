package cdc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"walhook/cdc/source"
	"walhook/schemas"
)

// The messages of pgoutput, protocol version 1 (PostgreSQL manual, Logical
// Replication Message Formats).
const (
	msgBegin    = 'B'
	msgCommit   = 'C'
	msgOrigin   = 'O'
	msgRelation = 'R'
	msgType     = 'Y'
	msgInsert   = 'I'
	msgUpdate   = 'U'
	msgDelete   = 'D'
	msgTruncate = 'T'
	msgLogical  = 'M'
)

// maxColumns is PostgreSQL's own bound (MaxTupleAttributeNumber), with room.
const maxColumns = 1664

// begin is a BEGIN message. Without streaming of transactions in progress it
// already carries the LSN of the commit record.
type begin struct {
	commit      schemas.LSN
	committedAt time.Time
	xid         uint32
}

func decodeBegin(c *cursor) (begin, error) {
	b := begin{commit: c.lsn(), committedAt: source.ProtocolTime(c.uint64()), xid: c.uint32()}
	return b, c.done()
}

// commit is a COMMIT message. end is the end of the commit record, which is not its own
// LSN.
type commit struct {
	lsn, end schemas.LSN
}

func decodeCommit(c *cursor) (commit, error) {
	if flags := c.byte(); flags != 0 && c.err == nil {
		return commit{}, fmt.Errorf("commit flags are %d, want 0", flags)
	}
	m := commit{lsn: c.lsn(), end: c.lsn()}
	c.uint64() // the commit time, which BEGIN has too
	return m, c.done()
}

func decodeRelation(c *cursor) (*schemas.Relation, error) {
	r := &schemas.Relation{OID: c.uint32(), Namespace: c.string(), Name: c.string(), Identity: schemas.ReplicaIdentity(c.byte())}
	if r.Namespace == "" {
		r.Namespace = "pg_catalog"
	}
	n := int(c.uint16())
	if n > maxColumns {
		return nil, fmt.Errorf("%d columns, want at most %d", n, maxColumns)
	}
	for range n {
		flags := c.byte()
		column := schemas.Column{Key: flags&1 != 0, Name: c.string(), Type: c.uint32()}
		c.uint32() // type modifier
		if c.err != nil {
			break
		}
		r.Columns = append(r.Columns, column)
	}
	switch r.Identity {
	case schemas.IdentityDefault, schemas.IdentityIndex, schemas.IdentityFull, schemas.IdentityNothing:
	default:
		if c.err == nil {
			c.err = fmt.Errorf("replica identity %q is not known", byte(r.Identity))
		}
	}
	return r, c.done()
}

// decodeTuple decodes a TupleData of the relation's shape into a. key says that it is a
// key tuple, in which the server sends null for columns outside the key.
func decodeTuple(c *cursor, a *arena, r *schemas.Relation, key bool) (schemas.Tuple, error) {
	n := int(c.uint16())
	if c.err == nil && n != len(r.Columns) {
		return nil, fmt.Errorf("tuple has %d columns, relation %s has %d", n, r.Table(), len(r.Columns))
	}
	if c.err != nil {
		return nil, c.err
	}
	row := a.tuple(n)
	for i := range row {
		switch kind := c.byte(); kind {
		case 'n':
			row[i].State = schemas.Null
		case 'u':
			row[i].State = schemas.Absent
		case valueDropped:
			c.dropped = true
		case 't':
			text := c.take(int(c.uint32()))
			row[i] = schemas.Value{State: schemas.Text, Text: a.bytes(text)}
		default:
			if c.err == nil {
				c.err = fmt.Errorf("column %s has kind %q, want n, u or t", r.Columns[i].Name, kind)
			}
		}
		if c.err != nil {
			return nil, c.err
		}
		if key && !r.Columns[i].Key {
			row[i] = schemas.Value{}
		}
	}
	return row, nil
}

// decodeRow decodes an INSERT, UPDATE or DELETE after its relation's OID. viaRoot says
// that the old row may be a partition's, published as its root's: the root's key flags
// do not apply to it, so decodeRow keeps all its values.
func decodeRow(c *cursor, a *arena, kind schemas.Kind, r *schemas.Relation, viaRoot bool) (change schemas.Change, err error) {
	change.Kind, change.Relation = kind, r
	tag := c.byte()
	if kind != schemas.Insert && (tag == 'K' || tag == 'O') {
		change.OldIsKey = !viaRoot && tag == 'K'
		if change.Old, err = decodeTuple(c, a, r, change.OldIsKey); err != nil {
			return change, err
		}
		if kind == schemas.Delete {
			return change, c.done()
		}
		tag = c.byte()
	}
	if c.err == nil && (tag != 'N' || kind == schemas.Delete) {
		return change, fmt.Errorf("tuple marked %q in %s", tag, kind)
	}
	if change.New, err = decodeTuple(c, a, r, false); err != nil {
		return change, err
	}
	return change, c.done()
}

// fillUnchanged takes values that an UPDATE did not change and the server did not send
// (unchanged TOAST) from the old row, if that has them.
func fillUnchanged(row, old schemas.Tuple) {
	if old == nil {
		return
	}
	for i := range row {
		if row[i].State == schemas.Absent {
			row[i] = old[i]
		}
	}
}

func decodeTruncate(c *cursor) (relations []uint32, err error) {
	n := int(c.uint32())
	c.byte() // CASCADE, RESTART IDENTITY
	if n < 0 || n > len(c.buf)/4 {
		return nil, errShort
	}
	for range n {
		relations = append(relations, c.uint32())
	}
	return relations, c.done()
}

// decodeLogical decodes a logical message. It does not copy the content of a message with
// another prefix. A shortened message has no content.
func decodeLogical(c *cursor, a *arena, taken schemas.Messages, shortened bool) (schemas.Change, error) {
	change := schemas.Change{Kind: schemas.Message}
	change.Transactional = c.byte()&1 != 0
	c.lsn()
	change.Prefix = c.string()
	if shortened {
		return change, c.done()
	}
	if content := c.take(int(c.uint32())); taken.Take(change.Prefix) {
		change.Content = a.bytes(content)
	}
	return change, c.done()
}

// errShort says that a message ends before its fields do.
var errShort = errors.New("message is too short")

// cursor reads the fields of one message. It keeps its first error; every read after
// that returns zero, so that a decoder checks once, at its end.
type cursor struct {
	buf     []byte
	err     error
	dropped bool // the shortener dropped a value of the message
}

func (c *cursor) take(n int) []byte {
	if c.err != nil || n < 0 || n > len(c.buf) {
		if c.err == nil {
			c.err = errShort
		}
		return nil
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	return b
}

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if b := c.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (c *cursor) lsn() schemas.LSN { return schemas.LSN(c.uint64()) }

func (c *cursor) string() string {
	if c.err != nil {
		return ""
	}
	end := bytes.IndexByte(c.buf, 0)
	if end < 0 {
		c.err = errors.New("unterminated string")
		return ""
	}
	s := string(c.buf[:end])
	c.buf = c.buf[end+1:]
	return s
}

// done returns the first error, or one for trailing bytes.
func (c *cursor) done() error {
	if c.err == nil && len(c.buf) > 0 {
		return fmt.Errorf("%d trailing bytes", len(c.buf))
	}
	return c.err
}
