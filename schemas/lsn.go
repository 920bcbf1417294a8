package schemas

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a byte position in the source's write-ahead log (PostgreSQL manual,
// "WAL Internals"). Zero means "no position" and is never a real one.
type LSN uint64

// String writes the form that PostgreSQL prints, such as 0/16B3748.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// ParseLSN reads the form that PostgreSQL prints. Unlike a scanf it takes the
// whole text or nothing: "0/1 junk" is an error.
func ParseLSN(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("LSN %q: want two hexadecimal numbers with a slash between, such as 0/16B3748", s)
	}
	h, errHigh := parseHex32(high)
	l, errLow := parseHex32(low)
	if errHigh != nil || errLow != nil {
		return 0, fmt.Errorf("LSN %q: want two hexadecimal numbers with a slash between, such as 0/16B3748", s)
	}
	return LSN(h)<<32 | LSN(l), nil
}

func parseHex32(s string) (uint64, error) {
	if len(s) == 0 || s[0] == '+' || s[0] == '-' {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(s, 16, 32)
}
