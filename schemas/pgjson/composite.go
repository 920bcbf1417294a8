package pgjson

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

// appendAttribute writes the field at pos and says where it ends.
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
