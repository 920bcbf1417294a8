package pgjson

import (
	"bytes"
)

// maxDimensions is PostgreSQL's MAXDIM.
const maxDimensions = 6

// appendArray writes what array_out printed, such as {1,NULL} or
// {{"a b","c\"d"},{e,f}}, as nested lists. Bounds in front ([2:3]=) are left
// out, as to_json does.
func (t *Types) appendArray(dst []byte, typ *registeredType, text []byte, depth int) ([]byte, *ValueError) {
	pos, ok := skipBounds(text)
	if !ok {
		return dst, fault(pos, errArray)
	}
	if string(text[pos:]) == "{}" {
		return append(dst, '[', ']'), nil
	}
	var shape arrayShape
	for {
		for pos < len(text) && text[pos] == '{' {
			if !shape.open() {
				return dst, fault(pos, errDimensions)
			}
			dst = append(dst, '[')
			pos++
		}
		if !shape.element() {
			return dst, fault(pos, errDimensions)
		}
		var err *ValueError
		dst, pos, err = t.appendElement(dst, typ, text, pos, depth)
		if err != nil {
			return dst, err
		}
		for pos < len(text) && text[pos] == '}' {
			if !shape.close() {
				return dst, fault(pos, errDimensions)
			}
			dst = append(dst, ']')
			pos++
			if shape.level == 0 {
				if pos != len(text) {
					return dst, fault(pos, errArray)
				}
				return dst, nil
			}
		}
		if pos == len(text) || text[pos] != typ.Delim {
			return dst, fault(pos, errArray)
		}
		dst = append(dst, ',')
		pos++
	}
}

// skipBounds finds where the braces begin.
func skipBounds(text []byte) (int, bool) {
	if len(text) == 0 || text[0] != '[' {
		return 0, true
	}
	for i, c := range text {
		switch {
		case c == '=':
			return i + 1, text[i-1] == ']'
		case c >= '0' && c <= '9', c == '[', c == ']', c == ':', c == '-':
		default:
			return i, false
		}
	}
	return len(text), false
}

// arrayShape tracks the braces of an array and checks that it is rectangular, as
// every array of PostgreSQL is.
type arrayShape struct {
	level  int                     // braces open
	leaf   int                     // the level that elements are at; zero before the first
	count  [maxDimensions + 1]int  // by level: elements so far in the list that is open there
	length [maxDimensions + 1]int  // by level: elements of a list there
	closed [maxDimensions + 1]bool // by level: whether length is known
}

func (s *arrayShape) open() bool {
	if s.level == maxDimensions || s.leaf != 0 && s.level >= s.leaf {
		return false
	}
	s.count[s.level]++
	s.level++
	s.count[s.level] = 0
	return true
}

func (s *arrayShape) element() bool {
	if s.leaf == 0 {
		s.leaf = s.level
	}
	s.count[s.level]++
	return s.level > 0 && s.level == s.leaf
}

func (s *arrayShape) close() bool {
	if s.closed[s.level] && s.length[s.level] != s.count[s.level] {
		return false
	}
	s.closed[s.level], s.length[s.level] = true, s.count[s.level]
	s.level--
	return true
}

// appendElement writes the element at pos and returns where it ends.
func (t *Types) appendElement(dst []byte, typ *registeredType, text []byte, pos, depth int) ([]byte, int, *ValueError) {
	if pos < len(text) && text[pos] == '"' {
		return t.appendQuoted(dst, typ.Elem, text, pos, depth, backslashQuotes)
	}
	end := pos
	for end < len(text) && text[end] != typ.Delim && text[end] != '}' {
		if c := text[end]; c == '{' || c == '"' || c == '\\' {
			return dst, pos, fault(end, errArray)
		}
		end++
	}
	element := text[pos:end]
	if len(element) == 0 || end == len(text) {
		return dst, pos, fault(end, errArray)
	}
	if string(element) == "NULL" {
		return append(dst, "null"...), end, nil
	}
	dst, err := t.append(dst, typ.Elem, element, depth)
	if err != nil {
		return dst, pos, err.shift(pos, false)
	}
	return dst, end, nil
}

// appendVector writes int2vector and oidvector: elements with a space between.
func (t *Types) appendVector(dst []byte, typ *registeredType, text []byte, depth int) ([]byte, *ValueError) {
	dst = append(dst, '[')
	for pos := 0; pos < len(text); {
		if pos > 0 {
			dst = append(dst, ',')
		}
		element := text[pos:]
		if space := bytes.IndexByte(element, ' '); space >= 0 {
			element = element[:space]
		}
		if end := pos + len(element); len(element) == 0 || end == len(text)-1 {
			return dst, fault(end, errArray)
		}
		var err *ValueError
		if dst, err = t.append(dst, typ.Elem, element, depth); err != nil {
			return dst, err.shift(pos, false)
		}
		pos += len(element) + 1
	}
	return append(dst, ']'), nil
}

// appendComposite writes what record_out printed, such as (1,,"a ""b""",""),
// as an object: nothing between two commas is null, "" is the empty string.
func (t *Types) appendComposite(dst []byte, typ *registeredType, text []byte, depth int) ([]byte, *ValueError) {
	if len(text) < 2 || text[0] != '(' || text[len(text)-1] != ')' {
		return dst, fault(0, errComposite)
	}
	last := len(text) - 1
	dst = append(dst, '{')
	pos := 1
	for i := range typ.Attributes {
		if i > 0 {
			if pos == last {
				return dst, fault(pos, ErrAttributes)
			}
			if text[pos] != ',' {
				return dst, fault(pos, errComposite)
			}
			dst = append(dst, ',')
			pos++
		}
		dst = append(dst, typ.keys[i]...)
		var err *ValueError
		if dst, pos, err = t.appendAttribute(dst, typ.Attributes[i].Type, text[:last], pos, depth); err != nil {
			return dst, err
		}
	}
	if pos != last {
		if len(typ.Attributes) == 0 || text[pos] == ',' {
			return dst, fault(pos, ErrAttributes)
		}
		return dst, fault(pos, errComposite)
	}
	return append(dst, '}'), nil
}

// appendAttribute writes the field at pos and returns where it ends.
func (t *Types) appendAttribute(dst []byte, oid uint32, text []byte, pos, depth int) ([]byte, int, *ValueError) {
	if pos < len(text) && text[pos] == '"' {
		return t.appendQuoted(dst, oid, text, pos, depth, doubledQuotes)
	}
	end := pos
	for end < len(text) && text[end] != ',' {
		if c := text[end]; c == '(' || c == ')' || c == '"' || c == '\\' {
			return dst, pos, fault(end, errComposite)
		}
		end++
	}
	if end == pos {
		return append(dst, "null"...), end, nil
	}
	dst, err := t.append(dst, oid, text[pos:end], depth)
	if err != nil {
		return dst, pos, err.shift(pos, false)
	}
	return dst, end, nil
}

// quoteStyle is how a quoted part escapes the quotes and backslashes inside it.
type quoteStyle byte

const (
	backslashQuotes quoteStyle = iota // arrays and hstore: \" and \\
	doubledQuotes                     // composites: "" and \\
)

// appendQuoted writes the quoted part that begins at pos and returns where it ends.
// It unquotes a part with escapes at the end of dst, writes the JSON behind it, and
// removes the unquoted copy, so that nesting needs no further memory.
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

// scanQuoted finds the end of the quoted part that begins at pos.
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

// appendUnquoted appends the inside of quotes without the first byte of each
// escape. In either style that byte is a backslash or a quote.
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

// appendHstore writes what hstore_out printed, such as "a"=>"1", "b"=>NULL, in
// the bytes of hstore_to_json: an object of strings and nulls, with spaces.
func (t *Types) appendHstore(dst, text []byte) ([]byte, *ValueError) {
	dst = append(dst, '{')
	var err *ValueError
	for pos := 0; pos < len(text); {
		if pos > 0 {
			if !bytes.HasPrefix(text[pos:], []byte(", ")) {
				return dst, fault(pos, errHstore)
			}
			dst = append(dst, ", "...)
			pos += 2
		}
		if dst, pos, err = t.appendHstoreString(dst, text, pos); err != nil {
			return dst, err
		}
		if !bytes.HasPrefix(text[pos:], []byte("=>")) {
			return dst, fault(pos, errHstore)
		}
		dst = append(dst, ": "...)
		pos += 2
		if bytes.HasPrefix(text[pos:], []byte("NULL")) {
			dst = append(dst, "null"...)
			pos += 4
			continue
		}
		if dst, pos, err = t.appendHstoreString(dst, text, pos); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func (t *Types) appendHstoreString(dst, text []byte, pos int) ([]byte, int, *ValueError) {
	if pos == len(text) || text[pos] != '"' {
		return dst, pos, fault(pos, errHstore)
	}
	const oidText = 25
	return t.appendQuoted(dst, oidText, text, pos, 0, backslashQuotes)
}
