package pgjson

import "bytes"

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
