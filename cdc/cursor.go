package cdc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"walhook/schemas"
)

// errShort says that a message ends before its fields do.
var errShort = errors.New("message is shorter than its fields")

// cursor reads the fields of one message. The first fault sticks; every read
// after it returns zero, so that a decoder checks once, at its end.
type cursor struct {
	buf     []byte
	err     error
	dropped bool // a value of the message was dropped as it arrived
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
		c.err = errors.New("a text is not terminated")
		return ""
	}
	s := string(c.buf[:end])
	c.buf = c.buf[end+1:]
	return s
}

// done is the fault, or that something is left over.
func (c *cursor) done() error {
	if c.err == nil && len(c.buf) > 0 {
		return fmt.Errorf("%d bytes are left after its fields", len(c.buf))
	}
	return c.err
}
