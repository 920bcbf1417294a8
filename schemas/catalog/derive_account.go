package catalog

import (
	"bytes"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// appendOwner writes an account's id; as a number where it reads as a whole one.
func appendOwner(dst []byte, account string, number bool) []byte {
	if number && schemas.IsWholeNumber(account) {
		return append(dst, account...)
	}
	return pgjson.AppendString(dst, []byte(account))
}

// MaxAccountColumnBytes bounds the JSON of one column that is kept of each
// account; a longer value is taken for null.
const MaxAccountColumnBytes = 4096

// accountColumn is the JSON of a column of the account's row; "" when it was
// not sent.
func (p *Plan) accountColumn(row schemas.Tuple, i int) string {
	if !carries(row, i) {
		return ""
	}
	return AccountColumnJSON(p.Relation.Types, p.Relation.Columns[i].Type, row[i])
}

// AccountColumnJSON is a value as it is kept of an account. What cannot be
// written, or is too long, is null.
func AccountColumnJSON(types *pgjson.Types, typ uint32, v schemas.Value) string {
	if v.State != schemas.Text {
		return "null"
	}
	text, err := types.AppendJSON(nil, typ, v.Text)
	if err != nil || len(text) > MaxAccountColumnBytes || bytes.IndexByte(text, 0) >= 0 {
		return "null"
	}
	return string(text)
}
