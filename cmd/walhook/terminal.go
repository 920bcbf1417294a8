package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// terminal is where the program writes for people. Names, reasons, responses and errors
// come from databases and receivers. So terminal escapes characters that control a
// terminal or change the order of text, as JSON does: \u001b. Tabs and line ends stay,
// CRLF in one Write too.
// It is safe for concurrent use.
type terminal struct {
	mu   sync.Mutex
	to   *os.File
	rest []byte // the beginning of a character whose end has not been written yet
}

func newTerminal(to *os.File) *terminal { return &terminal{to: to} }

// Write writes p escaped. It returns len(p) if the escaped text was written.
func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := append(t.rest, p...)
	escaped := make([]byte, 0, len(text))
	for len(text) > 0 && utf8.FullRune(text) {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			escaped = fmt.Appendf(escaped, `\x%02x`, text[0])
		case r == '\r' && len(text) > 1 && text[1] == '\n':
			escaped = append(escaped, '\r')
		case r != '\n' && r != '\t' && steers(r):
			escaped = appendEscaped(escaped, r)
		default:
			escaped = append(escaped, text[:size]...)
		}
		text = text[size:]
	}
	t.rest = append([]byte(nil), text...)
	if _, err := t.to.Write(escaped); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Sync is for the logger; it does nothing.
func (t *terminal) Sync() error { return nil }

// fileOf returns the file behind a writer of the program's own; nil for other writers.
func fileOf(w io.Writer) *os.File {
	switch w := w.(type) {
	case *terminal:
		return w.to
	case *os.File:
		return w
	}
	return nil
}

// steers reports whether a character is a control (C0, DEL, C1), a format character
// (which may change the direction of text, Unicode UAX #9, or have no width), or a line
// separator.
func steers(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

func appendEscaped(dst []byte, r rune) []byte {
	if r > 0xffff {
		high, low := utf16.EncodeRune(r)
		return fmt.Appendf(dst, `\u%04x\u%04x`, high, low)
	}
	return fmt.Appendf(dst, `\u%04x`, r)
}

// printable returns text for one line: it also escapes line ends, tabs and other
// characters without a glyph.
func printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
		return s
	}
	var line []byte
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			line = fmt.Appendf(line, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			line = append(line, s[i:i+size]...)
		default:
			line = appendEscaped(line, r)
		}
		i += size
	}
	return string(line)
}

// cellWidth is the width of a column of a table beyond which a text is cut: one
// account's long id or URL must not push the rest of everybody's lines off the
// screen.
const cellWidth = 80

// cell is text as it stands in a column that others follow, cut where it is wider
// than cellWidth characters. JSON output has it whole.
func cell(s string) string {
	s = printable(s)
	if utf8.RuneCountInString(s) <= cellWidth {
		return s
	}
	return string([]rune(s)[:cellWidth-1]) + "…"
}
