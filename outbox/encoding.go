package outbox

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/address"
	"walhook/schemas"
)

// An outbox belongs into a database with the encoding UTF8. One of another
// encoding cannot hold every text, so what comes from outside is stored there in
// ASCII: a text always in the same form, so that records keep their order and
// their owners. Bodies are bytes, and are stored as they are.

// encoding says what the outbox's server can hold. The first connection sets it.
type encoding struct{ narrow atomic.Bool }

func (e *encoding) learn(conn *pgx.Conn) {
	switch conn.PgConn().ParameterStatus("server_encoding") {
	case "UTF8", "SQL_ASCII", "": // SQL_ASCII holds any bytes
		e.narrow.Store(false)
	default:
		e.narrow.Store(true)
	}
}

// text is a text of others as the outbox stores it.
func (e *encoding) text(text string) string {
	text = schemas.Storable(text)
	if !e.narrow.Load() {
		return text
	}
	return escapeText(text)
}

// original undoes text.
func (e *encoding) original(stored string) string {
	if !e.narrow.Load() {
		return stored
	}
	return unescapeText(stored)
}

// unescapeText undoes escapeText.
func unescapeText(stored string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(stored, `\u{`)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		digits, after, ended := strings.Cut(rest, "}")
		code, err := strconv.ParseUint(digits, 16, 32)
		if !ended || err != nil {
			b.WriteString(`\u{`)
			stored = rest
			continue
		}
		b.WriteRune(rune(code))
		stored = after
	}
}

// escapeText writes what is not ASCII as \u{HEX}. No two texts look alike.
func escapeText(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return r > '~' || r == '\\' }) {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		if r > '~' || r == '\\' && strings.HasPrefix(text[i:], `\u{`) {
			fmt.Fprintf(&b, `\u{%X}`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// url is a URL as the outbox stores it: with what is not ASCII percent-encoded,
// which is the same URL (RFC 3986, section 2.5). A host stays as it is.
func (e *encoding) url(text string) string {
	if !e.narrow.Load() {
		return text
	}
	u, err := address.Parse(text)
	if err != nil {
		return escapeText(text)
	}
	u.RawQuery, u.Fragment, u.RawFragment = percent(u.RawQuery), "", ""
	return escapeText(u.String())
}

// json is JSON with what is not ASCII escaped, which is the same value.
func (e *encoding) json(text string) string {
	if !e.narrow.Load() {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case r <= '~':
			b.WriteRune(r)
		case r > 0xFFFF:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xD800+r>>10, 0xDC00+r&0x3FF)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func percent(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c > '~' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
