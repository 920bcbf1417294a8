package catalog

import (
	"bytes"
	"math/big"
	"strings"

	"walhook/schemas"
)

func isTrue(v schemas.Value) bool {
	if v.State != schemas.Text || len(v.Text) > 64 {
		return false
	}
	switch strings.ToLower(string(v.Text)) {
	case "t", "true", "y", "yes", "on":
		return true
	case "f":
		return false
	}
	n, ok := number(v)
	return ok && n.Sign() != 0
}

func rises(r rows, i int) answer {
	value := func(row schemas.Tuple) (*big.Float, answer) {
		switch {
		case row == nil:
			return new(big.Float), yes
		case i >= len(row) || row[i].State == schemas.Absent:
			return nil, untellable
		}
		n, ok := number(row[i])
		if !ok {
			return nil, no
		}
		return n, yes
	}
	before, told := value(r.old)
	after, toldToo := value(r.new)
	if told != yes || toldToo != yes {
		return min(told, toldToo)
	}
	if after.Cmp(before) > 0 {
		return yes
	}
	return no
}

// numberBits is the precision that numbers are compared with, some 77 decimal
// digits.
const numberBits = 256

// number reads a number; null is 0. What is too long to be one, or is none, is
// not ok.
func number(v schemas.Value) (*big.Float, bool) {
	n := new(big.Float).SetPrec(numberBits)
	if v.State == schemas.Null {
		return n, true
	}
	if len(v.Text) > 400 || bytes.ContainsAny(v.Text, "xXpPbBoO_iI") {
		return nil, false
	}
	_, ok := n.SetString(string(v.Text))
	return n, ok
}
