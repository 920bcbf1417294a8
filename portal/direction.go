package portal

import "strings"

// The characters that begin and end an isolate (Unicode Standard Annex 9, 2.4).
const (
	isolateBegin = "\u2068" // FIRST STRONG ISOLATE
	isolateEnd   = "\u2069" // POP DIRECTIONAL ISOLATE
)

// isolated returns a text from outside as it can stand inside of the portal's own: the
// characters in it that turn the direction of text turn nothing behind it. Where a text is
// an element of a page by itself, the stylesheet does this.
func isolated(text string) string {
	if !strings.ContainsFunc(text, turns) {
		return text
	}
	return isolateBegin + strings.Map(func(r rune) rune {
		if r >= '\u2066' && r <= '\u2069' { // its own isolates could end this one
			return -1
		}
		return r
	}, text) + isolateEnd
}

// turns reports whether a character changes the direction of what follows (Unicode Standard
// Annex 9, 2.1 to 2.4).
func turns(r rune) bool { return r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' }
