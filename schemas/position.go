package schemas

import (
	"fmt"
	"strconv"
	"strings"
)

// Position is the permanent identity of one change: the LSN of its transaction's
// commit record, and the number of its change message inside that transaction, as
// the server streams them, counted from 1 before any filter of walhook.
//
// A change's own LSN is not an identity: rows of one COPY share it, and the changes
// of interleaved transactions arrive with decreasing LSNs. Positions rise strictly
// in the order of the stream. The zero Position is before every change.
type Position struct {
	Commit  LSN
	Ordinal int64
}

// Compare orders positions as the stream does.
func (p Position) Compare(q Position) int {
	switch {
	case p.Commit < q.Commit:
		return -1
	case p.Commit > q.Commit:
		return 1
	case p.Ordinal < q.Ordinal:
		return -1
	case p.Ordinal > q.Ordinal:
		return 1
	}
	return 0
}

// String is for logs and errors: 0/16B3748#3.
func (p Position) String() string {
	return p.Commit.String() + "#" + strconv.FormatInt(p.Ordinal, 10)
}

// WebhookID returns the webhook-id of the part-th event (from 0) of the change at
// p: evt_00000000016B3748_3, then evt_00000000016B3748_3b, _3c and so on. It
// depends only on the change, so it stays the same through retries, restarts and
// replays.
func (p Position) WebhookID(part int) string {
	id := fmt.Sprintf("evt_%016X_%d", uint64(p.Commit), p.Ordinal)
	if part == 0 {
		return id
	}
	return id + partSuffix(part)
}

// partSuffix counts b, c, … z, ba, bb, …: base 26, with "a" as zero.
func partSuffix(part int) string {
	var digits [8]byte
	i := len(digits)
	for part > 0 {
		i--
		digits[i] = byte('a' + part%26)
		part /= 26
	}
	return string(digits[i:])
}

// LSN is a byte position in the source's WAL (PostgreSQL manual, "WAL Internals").
// Zero means "no position" and is never a real one.
type LSN uint64

// String writes the form that PostgreSQL prints, such as 0/16B3748.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// ParseLSN reads the form that PostgreSQL prints. It rejects trailing text, which a
// scanf would accept: "0/1 junk" is an error.
func ParseLSN(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("LSN %q: want two hexadecimal numbers separated by a slash, such as 0/16B3748", s)
	}
	h, errHigh := parseHex32(high)
	l, errLow := parseHex32(low)
	if errHigh != nil || errLow != nil {
		return 0, fmt.Errorf("LSN %q: want two hexadecimal numbers separated by a slash, such as 0/16B3748", s)
	}
	return LSN(h)<<32 | LSN(l), nil
}

func parseHex32(s string) (uint64, error) {
	if len(s) == 0 || s[0] == '+' || s[0] == '-' {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(s, 16, 32)
}
