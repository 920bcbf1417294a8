package cdc

import (
	"bytes"
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"walhook/schemas"
)

// sqlASCII is the encoding of a server that knows none: its texts are bytes. It
// verifies what it sends to a client of another encoding, and fails at the first
// byte that is none of that; so it is asked for bytes.
const sqlASCII = "SQL_ASCII"

func serverEncoding(conn *pgconn.PgConn) string { return conn.ParameterStatus("server_encoding") }

const replacement = string(utf8.RuneError)

// legible makes UTF-8 of bytes: each that is not is replaced by U+FFFD and its
// two hexadecimal digits. A text that has such a sequence already has the bytes
// of its U+FFFD replaced, so that what differs, an id above all, goes on to.
func legible(text []byte) []byte {
	if !bytes.Contains(text, []byte(replacement)) && utf8.Valid(text) {
		return text
	}
	const digits = "0123456789abcdef"
	out := make([]byte, 0, len(text)+16)
	replace := func(b byte) { out = append(utf8.AppendRune(out, utf8.RuneError), digits[b>>4], digits[b&15]) }
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && n == 1:
			replace(text[0])
		case r == utf8.RuneError && len(text) >= n+2 && isHex(text[n]) && isHex(text[n+1]):
			for _, b := range text[:n] {
				replace(b)
			}
		default:
			out = append(out, text[:n]...)
		}
		text = text[n:]
	}
	return out
}

// isHex knows the digits that legible writes.
func isHex(b byte) bool { return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' }

// makeLegible does so with the values of a row.
func (s *stream) makeLegible(row schemas.Tuple, relation *schemas.Relation) {
	for i := range row {
		valid := utf8.Valid(row[i].Text)
		row[i].Text = legible(row[i].Text)
		if valid {
			continue
		}
		if name := relation.Table().String() + "." + relation.Columns[i].Name; !s.illegible[name] {
			s.illegible[name] = true
			s.r.log.Warn("a value is not UTF-8: its bytes are replaced by U+FFFD and their hexadecimal digits",
				zap.String("column", name), zap.Stringer("position", s.position))
		}
	}
}

const convertSQL = `SELECT pg_catalog.convert_from($1::pg_catalog.bytea, pg_catalog.getdatabaseencoding())`

// convertContent makes UTF-8 of a logical message's content, which comes in the
// server's encoding whatever the session's is.
func (s *stream) convertContent(ctx context.Context, content []byte) ([]byte, error) {
	if isASCII(content) || s.encoding == "UTF8" || s.encoding == "" {
		return content, nil
	}
	if s.encoding == sqlASCII || s.convert == nil {
		return legible(content), nil
	}
	text, err := s.convert(ctx, content)
	if sqlState(err) != "" && !IsUnreachable(err) {
		return legible(content), nil // no text of that encoding
	}
	if err != nil {
		return nil, fmt.Errorf("convert a logical message: %w", err)
	}
	return []byte(text), nil
}

// convert has the server convert.
func (r *catalogReader) convert(ctx context.Context, content []byte) (text string, err error) {
	err = r.conn.QueryRow(ctx, convertSQL, content).Scan(&text)
	return text, err
}

func isASCII(text []byte) bool {
	for _, b := range text {
		if b >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
