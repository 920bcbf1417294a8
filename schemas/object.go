package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"walhook/schemas/pgjson"
)

// Member is one name and value of a JSON object whose order matters.
type Member struct {
	Name  string
	Value json.RawMessage // as it was written
}

// ErrNotObject says that a text is not a JSON object. It does not quote the text.
var ErrNotObject = errors.New("not a JSON object")

// ParseObject reads a JSON object and keeps the order of its members. Values stay
// as they are written, with every digit of a number. A name that occurs twice keeps
// its first place and its last value, as in most JSON parsers. Errors do not quote
// the text.
func ParseObject(text []byte) ([]Member, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not valid UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return nil, ErrNotObject
	}
	var members []Member
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, ErrNotObject
		}
		m := Member{Name: name.(string)} // the decoder takes nothing else for a name
		if err := decoder.Decode(&m.Value); err != nil {
			return nil, ErrNotObject
		}
		members = SetMember(members, m)
	}
	if _, err := decoder.Token(); err != nil {
		return nil, ErrNotObject
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: trailing data", ErrNotObject)
	}
	return members, nil
}

// SetMember replaces the value of a member, or appends the member.
func SetMember(members []Member, m Member) []Member {
	for i := range members {
		if members[i].Name == m.Name {
			members[i].Value = m.Value
			return members
		}
	}
	return append(members, m)
}

// StringMember is a member whose value is a JSON string.
func StringMember(name string, text []byte) Member {
	return Member{Name: name, Value: pgjson.AppendString(nil, text)}
}

// AppendObject appends a JSON object. It adds no white space; values are copied as
// they are.
func AppendObject(dst []byte, members []Member) []byte {
	dst = append(dst, '{')
	for i := range members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = pgjson.AppendString(dst, []byte(members[i].Name))
		dst = append(dst, ':')
		dst = append(dst, members[i].Value...)
	}
	return append(dst, '}')
}

// Text returns a member's value as a form field holds it: a string without quotes,
// null as empty, and everything else as JSON.
func (m Member) Text() ([]byte, error) {
	switch value := bytes.TrimSpace(m.Value); {
	case len(value) == 0:
		return nil, fmt.Errorf("%s: no value", m.Name)
	case value[0] == '"':
		var text string
		if err := json.Unmarshal(value, &text); err != nil {
			return nil, fmt.Errorf("%s: not a JSON string", m.Name)
		}
		return []byte(text), nil
	case bytes.Equal(value, []byte("null")):
		return nil, nil
	default:
		return value, nil
	}
}

// AppendForm appends members as application/x-www-form-urlencoded, in their
// order (URL Standard, 5.2): letters, digits and * - . _ stay, a space is +, and
// every other byte of the UTF-8 text is %XX.
func AppendForm(dst []byte, members []Member) ([]byte, error) {
	for i, m := range members {
		text, err := m.Text()
		if err != nil {
			return dst, err
		}
		if i > 0 {
			dst = append(dst, '&')
		}
		dst = appendFormText(dst, []byte(m.Name))
		dst = append(dst, '=')
		dst = appendFormText(dst, text)
	}
	return dst, nil
}

func appendFormText(dst, text []byte) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range text {
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '*' || c == '-' || c == '.' || c == '_':
			dst = append(dst, c)
		case c == ' ':
			dst = append(dst, '+')
		default:
			dst = append(dst, '%', hex[c>>4], hex[c&0xf])
		}
	}
	return dst
}
