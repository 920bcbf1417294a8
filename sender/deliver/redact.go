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
	"walhook/outbox/address"
)

// keep returns the part of a receiver's text that may be stored: without anything of
// the event, and without secrets.
func (x *attempt) keep(text string, e outbox.Endpoint) string {
	text = printable(text[:min(len(text), 4*maxDetail)]) // first: unprintable characters could hide an echo
	hidden := [][]byte{x.sent.body, []byte(x.signature)}
	for _, secret := range confidential(e, x.sent.query) {
		text = strings.ReplaceAll(text, secret, "…") // also one shorter than echoRun
		hidden = append(hidden, []byte(secret))
	}
	return clip(without(text, hidden...))
}

// clip makes a receiver's text fit a column and a terminal.
func clip(s string) string {
	s = printable(s[:min(len(s), 4*maxDetail)])
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "") + "…"
	}
	return s
}

// printable removes bytes that are not UTF-8, control characters, and characters
// without width.
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

// confidential are the secret parts of an endpoint and a request, which a receiver may
// echo in its answer: the secrets, the query with the event, and the query, user name
// and password of the URL.
func confidential(e outbox.Endpoint, query string) []string {
	hidden := []string{query}
	for _, secret := range e.Secrets {
		hidden = append(hidden, secret, strings.TrimPrefix(secret, "whsec_"))
	}
	for _, h := range e.Headers {
		hidden = append(hidden, partsOf(h.Value)...)
	}
	if _, query, has := strings.Cut(e.URL, "?"); has {
		hidden = append(hidden, query) // as it is stored; requests may encode it otherwise
	}
	if u, _, err := address.RequestURL(e.URL); err == nil {
		hidden = append(hidden, u.RawQuery)
		if u.User != nil {
			password, _ := u.User.Password()
			basic := base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))
			hidden = append(hidden, basic, u.User.String(), password)
		}
	}
	return slices.DeleteFunc(hidden, func(s string) bool { return s == "" })
}

// shortestSecret is from which length on a part of a header's value is taken for a secret:
// 1, en or true is none, and stands in many an answer.
const shortestSecret = 5

// partsOf are the parts of a header's value that may be secret: the whole, its words, and
// what they decode to, as Basic authentication has user name and password.
func partsOf(value string) (parts []string) {
	for i, word := range append([]string{value}, strings.Fields(value)...) {
		if len(word) < shortestSecret || i == 1 && word != value && isScheme(word) {
			continue
		}
		parts = append(parts, word)
		if decoded, err := base64.StdEncoding.DecodeString(word); err == nil && i > 0 {
			if _, password, has := strings.Cut(string(decoded), ":"); has {
				parts = append(parts, string(decoded), password)
			}
		}
	}
	return slices.DeleteFunc(parts, func(part string) bool { return len(part) < shortestSecret })
}

// isScheme reports whether a word is the name of a common scheme of authentication.
func isScheme(word string) bool {
	return slices.ContainsFunc([]string{"Basic", "Bearer", "Token", "Digest", "ApiKey"}, func(s string) bool { return strings.EqualFold(word, s) })
}

const (
	// echoRun is from how many equal letters and digits in a row on a text counts as
	// an echo. A gram of that many bytes fits into a uint64.
	echoRun = 8

	// codedRun is from which length on a word may be base64 or hex.
	codedRun = 16
)

// without replaces the parts of text that echo a hidden text: only events may hold an
// account's rows, and nothing may hold secrets. It compares letters and digits only,
// after it has decoded percent, JSON and HTML escapes, so that no notation hides an
// echo. It compares words that may be base64 or hex by what they decode to. It keeps
// the name of a member of the event if that stands alone: error messages need it.
func without(text string, hidden ...[]byte) string {
	readings := readingsOf(text)
	grams := map[uint64]bool{} // of the readings; true for one of a hidden text
	var filter [1 << 13]uint64 // a Bloom filter of grams
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

// cutShared replaces the shared parts, with the short gaps between them.
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

// endOfShared is the end of an echo that begins at start. It continues after a gap of
// fewer than echoRun letters and digits.
func endOfShared(text string, shared []bool, start int) int {
	end, gap := start, 0
	for i := start; i < len(text) && gap < echoRun; i++ {
		switch {
		case shared[i]:
			end, gap = i+1, 0
		case isPlain(text[i]):
			gap++
		case text[i] == ' ' && isWordAfter(text, shared, i+1):
			return end // the receiver's own words follow
		}
	}
	return end
}

// isWordAfter reports whether a word that is not shared begins at i, as in a sentence
// about the event.
func isWordAfter(text string, shared []bool, i int) bool {
	letters := 0
	for ; i < len(text) && !shared[i] && text[i]|0x20 >= 'a' && text[i]|0x20 <= 'z'; i++ {
		letters++
	}
	return letters > 1 && (i == len(text) || text[i] == ' ')
}

// isMemberName reports whether a word is the name of a member of the event, as JSON, as
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

// reading is one way to read a text, or a word of it: its letters and digits.
type reading struct {
	chars      []byte
	places     [][2]int // the range of each in the text; nil for a decoded word
	start, end int      // of the word
	hidden     bool     // replace the whole word
}

// grams calls f with each run of echoRun characters, and the index of its last one.
func (r *reading) grams(f func(gram uint64, last int)) {
	var gram uint64
	for i, c := range r.chars {
		if gram = gram<<8 | uint64(c); i >= echoRun-1 {
			f(gram, i)
		}
	}
}

func filterBit(gram uint64) uint64 { return gram * 0x9e3779b97f4a7c15 >> (64 - 19) }

// readingsOf returns the text itself, what each of its words may decode to as base64 or
// hex from any of its first characters, and each hex dump.
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

// hexPairs calls f with each part of a text that is a hex dump, such as "7b 22" or
// "0x7B, 0x22".
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

// words calls f with the range of each long word of some characters.
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

// undo calls f with the bytes of the letters and digits of a text, without escapes and
// in lower case for ASCII, and with the range that each comes from.
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

// unescape decodes one escape at the start of a text, or skips a byte.
func unescape(text []byte) (decoded []byte, length int) {
	switch text[0] {
	case '%':
		at := 1
		for len(text) >= at+4 && text[at] == '2' && text[at+1] == '5' && areHex(text[at+2:at+4]) {
			at += 2 // an escaped percent sign
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

// hexRune parses u and four hex digits, as they follow a backslash.
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
