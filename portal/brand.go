package portal

import (
	"errors"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Brand is what makes the portal look like somebody's own. The zero value of each part
// leaves walhook's.
type Brand struct {
	Name    string
	Accent  Accent
	Support string // a link: https or mailto
	// Logo replaces mark and name at the top of a page; LogoDark replaces it on a dark
	// background.
	Logo, LogoDark *Logo
}

// The bounds of a brand's texts.
const (
	maxBrandName = 60  // characters
	maxSupport   = 500 // bytes
)

// ParseName reads the name of a brand. Its error does not quote it: a name may come from
// a row of somebody's.
func ParseName(text string) (string, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return "", errors.New("want a name")
	case !utf8.ValidString(text) || utf8.RuneCountInString(text) > maxBrandName:
		return "", errors.New("want a name of at most 60 characters")
	case strings.ContainsFunc(text, func(c rune) bool { return c == utf8.RuneError || !unicode.IsPrint(c) }):
		// Also the marks that turn the direction of the text around them.
		return "", errors.New("want a name of letters, digits, signs and spaces alone, in one line")
	case !strings.ContainsFunc(text, isVisible):
		return "", errors.New("want a name of which something can be seen")
	}
	return text, nil
}

// blanks are letters and signs without a shape, besides those that Unicode calls ignorable:
// BRAILLE PATTERN BLANK, MUSICAL SYMBOL NULL NOTEHEAD and two blanks of Egyptian.
const blanks = "\u2800\U0001d159\U00013441\U00013442"

// isVisible reports whether a character has a shape of its own. A mark has not, as it is
// drawn on another character.
func isVisible(c rune) bool {
	return unicode.In(c, unicode.L, unicode.N, unicode.P, unicode.S) && !unicode.Is(unicode.Other_Default_Ignorable_Code_Point, c) && !strings.ContainsRune(blanks, c)
}

// ParseSupport reads the link to support. Its error does not quote it.
func ParseSupport(text string) (string, error) {
	text = strings.TrimSpace(text)
	want := errors.New("want a link such as https://example.com/help or mailto:help@example.com, of at most 500 characters")
	if len(text) > maxSupport || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune("\"'<>\\`{}|^", c) }) {
		return "", want
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", want
	case u.Scheme == "https" && isHostname(u.Hostname()) && u.User == nil && u.Opaque == "":
		return u.String(), nil
	case u.Scheme == "mailto" && isMailbox(u.Opaque) && u.RawQuery == "" && !u.ForceQuery && u.Fragment == "":
		// Nothing behind the address: other fields could add recipients.
		return u.String(), nil
	}
	return "", want
}

// isMailbox reports whether a text is one plain address, name@host.
func isMailbox(text string) bool {
	name, host, found := strings.Cut(text, "@")
	return found && isHostname(host) && name != "" && !strings.ContainsFunc(name, func(c rune) bool {
		return !(c < 0x80 && (unicode.IsLetter(c) || unicode.IsDigit(c)) || strings.ContainsRune("._+-", c))
	})
}

// isHostname reports whether a text is a host's name, or an IPv4 address.
func isHostname(text string) bool {
	if text == "" || len(text) > 253 || strings.HasPrefix(text, ".") || strings.HasPrefix(text, "-") || strings.Contains(text, "..") {
		return false
	}
	return !strings.ContainsFunc(text, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-')
	})
}
