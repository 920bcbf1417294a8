package cdc

import (
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

// legible makes UTF-8 of bytes: each that is not is replaced by U+FFFD and its
// two hexadecimal digits, so that what differs, a key above all, goes on to.
func legible(text []byte) []byte {
	if utf8.Valid(text) {
		return text
	}
	const digits = "0123456789abcdef"
	out := make([]byte, 0, len(text)+16)
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 {
			out = append(utf8.AppendRune(out, utf8.RuneError), digits[text[0]>>4], digits[text[0]&15])
		} else {
			out = append(out, text[:n]...)
		}
		text = text[n:]
	}
	return out
}

// makeLegible does so with the values of a row.
func (s *stream) makeLegible(row schemas.Tuple, relation *schemas.Relation) {
	for i := range row {
		if utf8.Valid(row[i].Text) {
			continue
		}
		row[i].Text = legible(row[i].Text)
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
