package schemas

import "bytes"

// appendOwner writes an account's id; as a number where it reads as a whole one.
func appendOwner(dst []byte, account string, number bool) []byte {
	if number && isWhole(account) {
		return append(dst, account...)
	}
	return AppendString(dst, []byte(account))
}

func isWhole(s string) bool {
	digits := s
	if len(digits) > 0 && digits[0] == '-' {
		digits = digits[1:]
	}
	if digits == "" || len(digits) > 1 && digits[0] == '0' {
		return false
	}
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// MaxAccountColumnBytes bounds the JSON of one column that is kept of each
// account; a longer value is taken for null.
const MaxAccountColumnBytes = 4096

// accountColumn is the JSON of a column of the account's row; "" when it was
// not sent.
func (p *Plan) accountColumn(row Tuple, i int) string {
	if !row.carries(i) {
		return ""
	}
	return AccountColumnJSON(p.Relation.Types, p.Relation.Columns[i].Type, row[i])
}

// AccountColumnJSON is a value as it is kept of an account. What cannot be
// written, or is too long, is null.
func AccountColumnJSON(types *Types, typ uint32, v Value) string {
	if v.State != Text {
		return "null"
	}
	text, err := types.AppendJSON(nil, typ, v.Text)
	if err != nil || len(text) > MaxAccountColumnBytes || bytes.IndexByte(text, 0) >= 0 {
		return "null"
	}
	return string(text)
}
