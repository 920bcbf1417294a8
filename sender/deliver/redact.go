package deliver

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"html"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"walhook/outbox"
)

// keep is as much of a text from outside as may be kept: nothing of what was
// sent, and nothing that is shown nowhere.
func (x *attempt) keep(text string, e outbox.Endpoint) string {
	text = printable(text[:min(len(text), 4*maxDetail)]) // first: what is left out later would hide a repetition
	hidden := [][]byte{x.sent.body, []byte(x.signature)}
	for _, secret := range confidential(e, x.sent.query) {
		text = strings.ReplaceAll(text, secret, "…") // a short one too
		hidden = append(hidden, []byte(secret))
	}
	return clip(without(text, hidden...))
}

// clip makes text from outside fit a column and a terminal.
func clip(s string) string {
	s = printable(s[:min(len(s), 4*maxDetail)])
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "") + "…"
	}
	return s
}

// printable leaves out what is not shown: bytes that are no UTF-8, control
// characters, and characters without width.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

// confidential are the parts of an endpoint that are shown nowhere, as a
// receiver may show them in its answer: its secrets, the query that an event was
// put into, and of its URL the query, user name and password.
func confidential(e outbox.Endpoint, query string) []string {
	hidden := []string{query}
	for _, secret := range e.Secrets {
		hidden = append(hidden, secret, strings.TrimPrefix(secret, "whsec_"))
	}
	if _, query, has := strings.Cut(e.URL, "?"); has {
		hidden = append(hidden, query) // as it is written, which may not be how it is sent
	}
	if u, _, err := outbox.RequestURL(e.URL); err == nil {
		hidden = append(hidden, u.RawQuery)
		if u.User != nil {
			password, _ := u.User.Password()
			basic := base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))
			hidden = append(hidden, basic, u.User.String(), password)
		}
	}
	return slices.DeleteFunc(hidden, func(s string) bool { return s == "" })
}

const (
	// echoRun is how many letters and digits in a row an answer may share with
	// what was sent. A gram of that many bytes fits into a uint64.
	echoRun = 8

	// codedRun is how long a word has to be to be looked into as base64 or hex.
	codedRun = 16
)

// without replaces what text shares with any of the hidden texts: an account's
// rows are kept as events alone, and secrets nowhere. Texts are compared by their
// letters and digits only, after percent, JSON and HTML escapes are undone, so
// that neither a form of writing nor a part that is left out hides a repetition;
// words that may be base64 or hex are compared by what they decode to. The name
// of a member of what was sent, alone, stays: an error message needs it.
func without(text string, hidden ...[]byte) string {
	readings := readingsOf(text)
	grams := map[uint64]bool{} // of the readings; true for one that is hidden too
	var filter [1 << 13]uint64 // bits: which grams may be there at all
	for i := range readings {
		readings[i].grams(func(gram uint64, _ int) {
			grams[gram] = false
			at := filterBit(gram)
			filter[at>>6] |= 1 << (at & 63)
		})
	}
	if len(grams) == 0 {
		return text
	}
	for _, one := range hidden {
		var gram uint64
		length := 0
		undo(one, func(c byte, _, _ int) {
			gram = gram<<8 | uint64(c)
			if length++; length < echoRun {
				return
			}
			if at := filterBit(gram); filter[at>>6]&(1<<(at&63)) == 0 {
				return
			}
			if _, ok := grams[gram]; ok {
				grams[gram] = true
			}
		})
	}
	shared := make([]bool, len(text))
	mark := func(from, to int) {
		for i := from; i < to; i++ {
			shared[i] = true
		}
	}
	for i := range readings {
		r := &readings[i]
		r.grams(func(gram uint64, last int) {
			if !grams[gram] {
				return
			}
			if r.places == nil {
				r.hidden = true
				return
			}
			for _, place := range r.places[last-echoRun+1 : last+1] {
				mark(place[0], place[1])
			}
		})
		if r.hidden {
			mark(r.start, r.end)
		}
	}
	return cutShared(text, shared, hidden)
}

// cutShared leaves out what is shared, and what little stands between.
func cutShared(text string, shared []bool, hidden [][]byte) string {
	var kept strings.Builder
	for i := 0; i < len(text); {
		if !shared[i] {
			kept.WriteByte(text[i])
			i++
			continue
		}
		end := endOfShared(text, shared, i)
		if isMemberName(text[i:end], hidden) {
			kept.WriteString(text[i:end])
		} else {
			kept.WriteString("…")
		}
		i = end
	}
	return kept.String()
}

// endOfShared is where a repetition that begins at start ends. It goes on behind
// a gap of fewer than echoRun letters and digits.
func endOfShared(text string, shared []bool, start int) int {
	end, gap := start, 0
	for i := start; i < len(text) && gap < echoRun; i++ {
		switch {
		case shared[i]:
			end, gap = i+1, 0
		case isPlain(text[i]):
			gap++
		case text[i] == ' ' && isWordAfter(text, shared, i+1):
			return end // words of its own
		}
	}
	return end
}

// isWordAfter says whether a word that is not shared begins at i, as in a
// sentence about what was sent.
func isWordAfter(text string, shared []bool, i int) bool {
	letters := 0
	for ; i < len(text) && !shared[i] && text[i]|0x20 >= 'a' && text[i]|0x20 <= 'z'; i++ {
		letters++
	}
	return letters > 1 && (i == len(text) || text[i] == ' ')
}

// isMemberName says whether a word names a member of what was sent, as JSON, as
// JSON within a string, or as a form.
func isMemberName(word string, hidden [][]byte) bool {
	for i := range len(word) {
		if !isPlain(word[i]) && word[i] != '_' || word[i] >= 0x80 {
			return false
		}
	}
	for _, sent := range hidden {
		for _, form := range []string{`"` + word + `":`, `"` + word + `\":`, "&" + word + "="} {
			if bytes.Contains(sent, []byte(form)) {
				return true
			}
		}
	}
	return false
}

// reading is one way to read a text, or a word of it: the letters and digits.
type reading struct {
	chars      []byte
	places     [][2]int // where each stands in the text; nil where the word counts as one
	start, end int      // of the word
	hidden     bool     // the word is to go
}

func (r *reading) grams(f func(gram uint64, last int)) {
	var gram uint64
	for i, c := range r.chars {
		if gram = gram<<8 | uint64(c); i >= echoRun-1 {
			f(gram, i)
		}
	}
}

func filterBit(gram uint64) uint64 { return gram * 0x9e3779b97f4a7c15 >> (64 - 19) }

// readingsOf are a text as it is, each of its words that may be base64 or hex as
// what it decodes to, begun at any of its characters, and each dump of bytes.
func readingsOf(text string) []reading {
	var plain reading
	undo([]byte(text), func(c byte, from, to int) {
		plain.chars = append(plain.chars, c)
		plain.places = append(plain.places, [2]int{from, to})
	})
	all := []reading{plain}
	add := func(start, end int, decoded []byte) {
		r := reading{start: start, end: end}
		undo(decoded, func(c byte, _, _ int) { r.chars = append(r.chars, c) })
		all = append(all, r)
	}
	words(text, isBase64, func(start, end int) {
		standard := strings.NewReplacer("-", "+", "_", "/").Replace(text[start:end])
		for skip := range 4 {
			part := standard[skip:]
			if decoded, err := base64.RawStdEncoding.DecodeString(part[:len(part)/4*4]); err == nil {
				add(start, end, decoded)
			}
		}
	})
	words(text, isHex, func(start, end int) {
		for skip := range 2 {
			part := text[start+skip : end]
			if decoded, err := hex.DecodeString(part[:len(part)/2*2]); err == nil {
				add(start, end, decoded)
			}
		}
	})
	hexPairs(text, add)
	return all
}

// hexPairs calls f with each part of a text that is a dump of bytes, such as
// "7b 22" or "0x7B, 0x22".
func hexPairs(text string, f func(start, end int, decoded []byte)) {
	var decoded []byte
	start, end := 0, 0
	done := func() {
		if len(decoded) >= echoRun {
			f(start, end, decoded)
		}
		decoded = nil
	}
	for i := 0; i < len(text); {
		if !isPlain(text[i]) {
			i++
			continue
		}
		word := i
		for i < len(text) && isPlain(text[i]) {
			i++
		}
		digits := strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(text[word:i]), "0x"), "x")
		one, err := hex.DecodeString(digits)
		if len(digits) != 2 || err != nil || len(decoded) > 0 && word-end > 4 {
			done()
		}
		if len(digits) == 2 && err == nil {
			if len(decoded) == 0 {
				start = word
			}
			decoded, end = append(decoded, one[0]), i
		}
	}
	done()
}

// words calls f with where each long word of some characters stands.
func words(text string, of func(byte) bool, f func(start, end int)) {
	for start := 0; start < len(text); {
		end := start
		for end < len(text) && of(text[end]) {
			end++
		}
		if end-start >= codedRun {
			f(start, end)
		}
		start = end + 1
	}
}

func isBase64(c byte) bool {
	return c < 0x80 && isPlain(c) || c == '+' || c == '/' || c == '-' || c == '_'
}

// undo calls f with the bytes of the letters and digits of a text, those of ASCII in
// lower case, and with where each comes from.
func undo(text []byte, f func(c byte, from, to int)) {
	for i := 0; i < len(text); {
		c := text[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(text[i:])
			if unicode.IsLetter(r) || unicode.IsNumber(r) {
				for _, c := range text[i : i+n] {
					f(c, i, i+n)
				}
			}
			i += n
			continue
		}
		if isPlain(c) {
			if c >= 'A' && c <= 'Z' {
				c |= 0x20
			}
			f(c, i, i+1)
			i++
			continue
		}
		decoded, n := unescape(text[i:])
		for _, c := range decoded {
			if !isPlain(c) {
				continue
			}
			if c >= 'A' && c <= 'Z' {
				c |= 0x20
			}
			f(c, i, i+n)
		}
		i += n
	}
}

func isPlain(c byte) bool {
	return c >= 0x80 || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

// unescape reads one escape at the start of a text, or passes over a byte.
func unescape(text []byte) (decoded []byte, length int) {
	switch text[0] {
	case '%':
		at := 1
		for len(text) >= at+4 && text[at] == '2' && text[at+1] == '5' && areHex(text[at+2:at+4]) {
			at += 2 // a percent sign, escaped itself
		}
		if len(text) >= at+2 && areHex(text[at:at+2]) {
			n, _ := strconv.ParseUint(string(text[at:at+2]), 16, 8)
			return []byte{byte(n)}, at + 2
		}
	case '\\':
		at := 1
		for at < len(text) && text[at] == '\\' {
			at++
		}
		if at == len(text) {
			return nil, at
		}
		switch text[at] {
		case 'u':
			if r, ok := hexRune(text[at:]); ok {
				if low, ok := hexRune(bytes.TrimLeft(text[at+5:min(len(text), at+5+12)], `\`)); ok && utf16.IsSurrogate(r) {
					gap := bytes.IndexByte(text[at+5:], 'u')
					return utf8.AppendRune(nil, utf16.DecodeRune(r, low)), at + 5 + gap + 5
				}
				return utf8.AppendRune(nil, r), at + 5
			}
		case 'x':
			if len(text) >= at+3 && areHex(text[at+1:at+3]) {
				n, _ := strconv.ParseUint(string(text[at+1:at+3]), 16, 8)
				return []byte{byte(n)}, at + 3
			}
		case 'n', 'r', 't', 'b', 'f':
			return nil, at + 1
		}
		return nil, at
	case '&':
		if end := bytes.IndexByte(text[:min(len(text), 10)], ';'); end > 1 {
			if s := html.UnescapeString(string(text[:end+1])); utf8.RuneCountInString(s) == 1 {
				return []byte(s), end + 1
			}
		}
	}
	return nil, 1
}

// hexRune reads what stands behind a backslash: u and four digits.
func hexRune(text []byte) (rune, bool) {
	if len(text) < 5 || text[0] != 'u' || !areHex(text[1:5]) {
		return 0, false
	}
	n, _ := strconv.ParseUint(string(text[1:5]), 16, 16)
	return rune(n), true
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

func areHex(text []byte) bool {
	return !slices.ContainsFunc(text, func(c byte) bool { return !isHex(c) })
}
