package main

import (
	"fmt"
	"strings"
	"unicode"
)

// sqlLine returns a statement in one line of printable text that means the same. A quoted
// name or literal with a line end or a control character in it takes the form with escapes
// (PostgreSQL manual, 4.1.1 and 4.1.2.2): somebody copies it from a screen, or psql reads it.
func sqlLine(sql string) string {
	if printable(sql) == sql {
		return sql
	}
	var b strings.Builder
	for len(sql) > 0 {
		at := strings.IndexAny(sql, `"'`)
		if at < 0 {
			break
		}
		b.WriteString(sql[:at])
		end := at + 1 // behind the closing quote
		for end < len(sql) {
			end++
			if sql[end-1] == sql[at] {
				if end == len(sql) || sql[end] != sql[at] {
					break
				}
				end++
			}
		}
		b.WriteString(escapedQuote(sql[at:end], sql[at] == '\'' && at > 0 && sql[at-1] == 'E'))
		sql = sql[end:]
	}
	b.WriteString(sql)
	return printable(b.String()) // what is outside of quotes, and bytes that are no text
}

// escapedQuote returns a quoted name or literal with escapes where it needs them. A literal
// may have some already: behind an E.
func escapedQuote(text string, escaped bool) string {
	if printable(text) == text {
		return text
	}
	prefix, four, six := "U&", `\%04x`, `\+%06x`
	if text[0] == '\'' { // U&'…' depends on a setting
		prefix, four, six = "E", `\u%04x`, `\U%08x`
	}
	var b strings.Builder
	if !escaped {
		b.WriteString(prefix)
	}
	for _, r := range text {
		switch {
		case r == '\\' && !escaped:
			b.WriteString(`\\`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, six, r)
		default:
			fmt.Fprintf(&b, four, r)
		}
	}
	return b.String()
}
