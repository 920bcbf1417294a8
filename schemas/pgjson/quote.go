package pgjson

// AppendString appends text as a JSON string, quotes included, in the bytes
// that PostgreSQL's escape_json writes. It escapes `"`, `\` and the control
// characters below 0x20, these as \b \f \n \r \t or else as \u00xx in lower case.
// DEL, non-ASCII characters, '/' and the characters of HTML stay as they are.
//
// text must be UTF-8; AppendString does not check that.
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
