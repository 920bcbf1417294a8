package pgjson

// quoteStyle is how a quoted part keeps its quotes and backslashes apart from
// the quote that ends it.
type quoteStyle byte

const (
	backslashQuotes quoteStyle = iota // arrays and hstore: \" and \\
	doubledQuotes                     // composites: "" and \\
)

// appendQuoted writes the quoted part that begins at pos and says where it
// ends. What has escapes is unquoted at the end of dst, written behind that,
// and taken out again, so that nesting needs no memory of its own.
func (t *Types) appendQuoted(dst []byte, oid uint32, text []byte, pos, depth int, style quoteStyle) ([]byte, int, *ValueError) {
	end, escaped, ok := scanQuoted(text, pos, style)
	if !ok {
		return dst, pos, fault(pos, errQuote)
	}
	part := text[pos+1 : end-1]
	mark := len(dst)
	if escaped {
		dst = appendUnquoted(dst, part)
		part = dst[mark:]
	}
	dst, err := t.append(dst, oid, part, depth)
	if err != nil {
		return dst, pos, err.shift(pos+1, escaped)
	}
	if escaped {
		dst = append(dst[:mark], dst[mark+len(part):]...)
	}
	return dst, end, nil
}

// scanQuoted finds the end of the quotes that open at pos.
func scanQuoted(text []byte, pos int, style quoteStyle) (end int, escaped, ok bool) {
	for i := pos + 1; i < len(text); i++ {
		switch {
		case text[i] == '\\', style == doubledQuotes && text[i] == '"' && i+1 < len(text) && text[i+1] == '"':
			escaped = true
			i++
		case text[i] == '"':
			return i + 1, escaped, true
		}
	}
	return pos, false, false
}

// appendUnquoted appends the inside of quotes with the first byte of each
// escape left out; in either style it is a backslash or a quote.
func appendUnquoted(dst, part []byte) []byte {
	start := 0
	for i := 0; i < len(part); i++ {
		if part[i] == '\\' || part[i] == '"' {
			dst = append(dst, part[start:i]...)
			i++
			start = i
		}
	}
	return append(dst, part[start:]...)
}
