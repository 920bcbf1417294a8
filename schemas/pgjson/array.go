package pgjson

import "bytes"

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

// arrayShape follows the braces of an array and holds it to be rectangular, as
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

// appendElement writes the element at pos and says where it ends.
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
