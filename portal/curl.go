package portal

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"walhook/outbox/address"
)

// curl writes the request as a command for a POSIX shell, to be pasted into a terminal.
// uri is the URL of the webhook; the command requests it as walhook does.
func (s *sentRequest) curl(uri string) string {
	if u, _, err := address.RequestURL(uri); err == nil {
		uri = u.String()
	}
	if s.Query != "" {
		join := "?"
		if strings.Contains(uri, "?") {
			join = "&"
		}
		uri += join + s.Query
	}
	lines := []string{"curl --globoff -X " + s.Method + " " + quoted(uri)}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		lines = append(lines, "-H "+quoted(name+": "+s.Headers[name]))
	}
	before := ""
	switch {
	case s.Body == "":
	case printable(s.Body):
		lines = append(lines, "--data-raw "+quoted(s.Body))
	default:
		before = "printf '%b' " + quoted(octal(s.Body)) + " |\n"
		lines = append(lines, "--data-binary @-")
	}
	return before + strings.Join(lines, " \\\n  ")
}

// quoted writes a text in single quotes (POSIX Shell Command Language, 2.2.2).
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// printable reports whether a terminal takes each character of a text for itself. It takes
// a control character for a key: DEL, pasted often enough, removes the opening quote.
func printable(text string) bool {
	for _, r := range text {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// octal escapes for printf's %b what is not printable, and the backslash (POSIX, printf).
func octal(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case unicode.IsPrint(r) && r != utf8.RuneError:
			b.WriteRune(r)
		default:
			for _, c := range []byte(text[:size]) {
				fmt.Fprintf(&b, `\0%03o`, c)
			}
		}
		text = text[size:]
	}
	return b.String()
}
