package schemas

import (
	"bytes"
	"errors"
	"strconv"
)

// Equality says when the source treats two texts as the same value. Account ids
// and keys are compared by it, by the type of the column that they refer to: two
// texts are the same value when their normal forms are equal.
type Equality string

// The equalities of types. The zero one compares texts byte by byte.
const (
	EqualAsText  Equality = ""
	EqualPadded  Equality = "padded"  // char(n): trailing blanks do not count
	EqualNumber  Equality = "number"  // integers, numeric, floats: 7 is 7.00
	EqualUUID    Equality = "uuid"    // in every form that the type accepts
	EqualFolded  Equality = "folded"  // citext: case does not count
	EqualUnknown Equality = "unknown" // texts do not show it: a nondeterministic collation, an interval, …
)

// Normal returns the form that all texts of one value share. It returns false for
// a text without such a form, for example one that is not a value of the type. The
// result may be text itself.
func (e Equality) Normal(text []byte) ([]byte, bool) {
	switch e {
	case EqualAsText:
		return text, true
	case EqualPadded:
		return bytes.TrimRight(text, " "), true
	case EqualNumber:
		return normalNumber(text)
	case EqualUUID:
		return normalUUID(text)
	case EqualFolded:
		return foldASCII(text)
	}
	return nil, false
}

// NormalOf returns the normal form of a text of a column that refers to another
// column: normalized first by the column's own type, then by that of the other.
func (e Equality) NormalOf(own Equality, text []byte) ([]byte, bool) {
	if own == EqualUnknown {
		return nil, false
	}
	if own == EqualPadded {
		text = bytes.TrimRight(text, " ") // as a cast does
	}
	return e.Normal(text)
}

// errIncomparable does not quote the id.
var errIncomparable = errors.New("the account's id is not a value of the type that accounts have, or texts of that type are not comparable")

// NormalID returns the normal form of an account's id.
func (e Equality) NormalID(id string) (string, error) {
	normal, ok := e.Normal([]byte(id))
	if !ok {
		return "", errIncomparable
	}
	return string(normal), nil
}

// maxExponent bounds the exponent of a float, and so the zeros that it stands for.
const maxExponent = 400

// normalNumber writes a decimal number without the parts that do not change its
// value: a plus sign, leading zeros, trailing zeros of the fraction, an exponent,
// the sign of zero.
func normalNumber(text []byte) ([]byte, bool) {
	s := bytes.TrimSpace(text)
	if IsWholeNumber(string(s)) && !bytes.Equal(s, []byte("-0")) {
		return s, true
	}
	switch string(s) {
	case "NaN", "Infinity", "-Infinity":
		return s, true
	}
	negative := false
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		negative, s = s[0] == '-', s[1:]
	}
	mantissa, exponent := s, 0
	if at := bytes.IndexAny(s, "eE"); at >= 0 {
		n, err := strconv.Atoi(string(s[at+1:]))
		if err != nil || n > maxExponent || n < -maxExponent {
			return nil, false
		}
		mantissa, exponent = s[:at], n
	}
	whole, fraction, _ := bytes.Cut(mantissa, []byte("."))
	digits := append(bytes.Clone(whole), fraction...)
	if len(digits) == 0 || bytes.ContainsFunc(digits, func(r rune) bool { return r < '0' || r > '9' }) {
		return nil, false
	}
	point := len(whole) + exponent // index of the decimal point among the digits
	if point < 0 {
		digits, point = append(bytes.Repeat([]byte("0"), -point), digits...), 0
	}
	if point > len(digits) {
		digits = append(digits, bytes.Repeat([]byte("0"), point-len(digits))...)
	}
	whole, fraction = bytes.TrimLeft(digits[:point], "0"), bytes.TrimRight(digits[point:], "0")
	if len(whole) == 0 {
		whole = []byte("0")
	}
	normal := bytes.Clone(whole)
	if len(fraction) > 0 {
		normal = append(append(normal, '.'), fraction...)
	}
	if negative && string(normal) != "0" {
		normal = append([]byte("-"), normal...)
	}
	return normal, true
}

// IsWholeNumber says whether a text is a whole number as JSON writes one.
func IsWholeNumber(s string) bool {
	digits := s
	if len(digits) > 0 && digits[0] == '-' {
		digits = digits[1:]
	}
	if digits == "" || len(digits) > 1 && digits[0] == '0' {
		return false
	}
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// normalUUID writes a UUID as the server does, from any form that it accepts.
func normalUUID(text []byte) ([]byte, bool) {
	s := bytes.TrimSpace(text)
	if len(s) > 1 && s[0] == '{' && s[len(s)-1] == '}' {
		s = s[1 : len(s)-1]
	}
	digits := bytes.ToLower(bytes.ReplaceAll(s, []byte("-"), nil))
	if len(digits) != 32 || bytes.ContainsFunc(digits, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') }) {
		return nil, false
	}
	normal := make([]byte, 0, 36)
	for i, part := range []int{8, 4, 4, 4, 12} {
		if i > 0 {
			normal = append(normal, '-')
		}
		normal, digits = append(normal, digits[:part]...), digits[part:]
	}
	return normal, true
}

// foldASCII lowercases an ASCII text. It returns false for other letters, because
// the server lowercases them by its locale.
func foldASCII(text []byte) ([]byte, bool) {
	if bytes.ContainsFunc(text, func(r rune) bool { return r >= 0x80 }) {
		return nil, false
	}
	return bytes.ToLower(text), true
}
