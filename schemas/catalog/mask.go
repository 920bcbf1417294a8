package catalog

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"unicode"

	"walhook/schemas/pgjson"
)

// The URLs in an account's row are confidential: their user information and query
// hold passwords and tokens. Parent accounts and feeds get the row without these
// parts.

// isURLName reports whether the name of a column or field says that it holds a URL:
// the name ends in "url" (weburl), or one of its words is "url" (url_old, sms_url_2,
// smsUrlOld).
func isURLName(name string) bool {
	whole := strings.TrimSuffix(strings.ToLower(name), "s")
	return strings.HasSuffix(whole, "url") || strings.HasSuffix(whole, "uri") || slices.ContainsFunc(wordsOf(name), func(word string) bool {
		word = strings.TrimSuffix(strings.ToLower(word), "s")
		return word == "url" || word == "uri"
	})
}

// wordsOf splits a name at every character that is not a letter, and before a
// capital that begins a word.
func wordsOf(name string) (words []string) {
	letters := []rune(name)
	begin := 0
	for i, r := range letters {
		apart := !unicode.IsLetter(r)
		capital := i > 0 && unicode.IsUpper(r) && (unicode.IsLower(letters[i-1]) || i+1 < len(letters) && unicode.IsLower(letters[i+1]))
		if apart || capital {
			words = append(words, string(letters[begin:i]))
			begin = i
			if apart {
				begin = i + 1
			}
		}
	}
	return append(words, string(letters[begin:]))
}

// isURLColumn reports whether a column of the account table holds URLs: it is the
// catalog's url column, or its name or its field's name says so.
func (c *Catalog) isURLColumn(column string) bool {
	if column == c.Account.URL || isURLName(column) {
		return true
	}
	s := c.byTable[c.Account.Table]
	return s != nil && slices.ContainsFunc(s.Fields, func(f Field) bool { return f.Column == column && isURLName(f.Name) })
}

// maskJSON masks the strings of the JSON value at the end of dst, which begins at
// from. In a URL column every string is a URL; in another column only strings with
// user information are. Names of members stay.
func maskJSON(dst []byte, from int, isURL bool) []byte {
	value := dst[from:]
	if !slices.Contains(value, '"') {
		return dst
	}
	var masked []byte
	kept := 0 // value[:kept] is in masked
	for i := 0; i < len(value); i++ {
		if value[i] != '"' {
			continue
		}
		end := i + 1
		for ; end < len(value) && value[end] != '"'; end++ {
			if value[end] == '\\' {
				end++
			}
		}
		if end >= len(value) {
			break // not JSON
		}
		rest := bytes.TrimLeft(value[end+1:], " \t\r\n")
		var text string
		if !bytes.HasPrefix(rest, []byte(":")) && json.Unmarshal(value[i:end+1], &text) == nil {
			if shown := maskText(text, isURL); shown != text {
				masked = pgjson.AppendString(append(masked, value[kept:i]...), []byte(shown))
				kept = end + 1
			}
		}
		i = end
	}
	if kept == 0 {
		return dst
	}
	masked = append(masked, value[kept:]...)
	return append(dst[:from], masked...)
}

func maskText(text string, isURL bool) string {
	if isURL {
		return maskURL(text)
	}
	if !strings.Contains(text, "//") || !strings.Contains(text, "@") {
		return text
	}
	// Word by word, since a sentence may contain a URL.
	var shown strings.Builder
	for text != "" {
		end := strings.IndexAny(text, wordEnds)
		if end < 0 {
			end = len(text)
		}
		word := text[:end]
		if hasUser(word) {
			word = maskURL(word)
		}
		shown.WriteString(word)
		if end < len(text) {
			shown.WriteByte(text[end])
			end++
		}
		text = text[end:]
	}
	return shown.String()
}

// wordEnds are the characters that end a URL.
const wordEnds = " \t\r\n\"'<>"

// hasUser reports whether a word is a URL with user information, also without a
// scheme (//u:p@host) or with a slash in its password.
func hasUser(word string) bool {
	_, rest, found := strings.Cut(word, "//")
	if !found {
		return false
	}
	if end := strings.IndexAny(rest, "?#"); end >= 0 {
		rest = rest[:end]
	}
	authority, path := rest, ""
	if end := strings.IndexAny(rest, `/\`); end >= 0 {
		authority, path = rest[:end], rest[end:]
	}
	return strings.Contains(authority, "@") || strings.Contains(path, "@") && !isHostPort(authority)
}

// maskURL removes the user information (…@), the query (?…) and the fragment (#…) of
// a URL. It does not parse the text, so it masks an invalid URL too; in doubt it
// removes more. Masking a masked URL changes nothing.
func maskURL(text string) string {
	fragment, query := "", ""
	if before, _, found := strings.Cut(text, "#"); found {
		text, fragment = before, "#…"
	}
	if before, _, found := strings.Cut(text, "?"); found {
		text, query = before, "?…"
	}
	scheme, rest, found := strings.Cut(text, "//")
	if found = found && (scheme == "" || strings.HasSuffix(scheme, ":")); !found {
		scheme, rest = "", text
	} else {
		scheme += "//"
	}
	authority, path := rest, ""
	if slash := strings.IndexAny(rest, `/\`); slash >= 0 && found {
		authority, path = rest[:slash], rest[slash:]
	}
	switch at := strings.LastIndex(authority, "@"); {
	case at >= 0:
		authority = "…" + authority[at:]
	case strings.Contains(path, "@") && !isHostPort(authority):
		// A password with a slash in it: the user information ends later.
		authority, path = "…"+path[strings.LastIndex(path, "@"):], ""
	}
	return scheme + authority + path + query + fragment
}

// isHostPort reports whether an authority without "@" is a host, with or without a
// port.
func isHostPort(authority string) bool {
	host, port, found := strings.Cut(authority, ":")
	if strings.HasPrefix(authority, "[") {
		host, port, found = strings.Cut(authority, "]")
		port = strings.TrimPrefix(port, ":")
	}
	return host != "" && (!found || strings.Trim(port, "0123456789") == "")
}
