package pgjson

// AppendString appends text as a JSON string, quotes included, in the bytes
// that PostgreSQL's escape_json writes: `"` and `\` and the control characters
// below 0x20 are escaped, the latter by \b \f \n \r \t where they have such a
// name and otherwise as \u00xx in lower case. DEL, non-ASCII, '/' and the
// characters that matter to HTML stay as they are.
//
// text is taken as UTF-8 and not checked.
func AppendString(dst, text []byte) []byte {
	dst = append(dst, '"')
	dst = AppendEscaped(dst, text)
	return append(dst, '"')
}

// AppendEscaped appends text as AppendString does, without the quotes around
// it, so that one JSON string can be put together from several pieces.
func AppendEscaped(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	start := 0
	for i, c := range text {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, text[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
	return append(dst, text[start:]...)
}
