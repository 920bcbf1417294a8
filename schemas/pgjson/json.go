package pgjson

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// AppendJSON appends the JSON that PostgreSQL's to_json() gives for the value
// whose text form is text, token for token. The text must be what the type's
// output function prints under DateStyle ISO, IntervalStyle postgres, TimeZone
// UTC, extra_float_digits 1 or more, bytea_output hex and client_encoding
// UTF8. A type that is not registered gives its text as a JSON string.
//
// An error is a [*ValueError], and dst comes back as it was. One that wraps
// [ErrAttributes] says that the registered type is out of date.
//
// The result differs from to_json() in three cases, which the stream does not show:
//   - Only the server can call a cast to json that a user, or an extension other
//     than hstore, defined for its own type; see Known.
//   - A composite's text holds no names. If the type was altered after the row was
//     written and still has as many attributes, the new names are used.
//   - A "char" above 0x7f is written as newer servers print it, \ooo, also when the
//     server sends the byte itself.
//
// The text of a json value is copied and not parsed again.
func (t *Types) AppendJSON(dst []byte, oid uint32, text []byte) ([]byte, error) {
	start := len(dst)
	dst, err := t.append(dst, oid, text, 0)
	if err != nil {
		err.Type = t.describe(oid)
		return dst[:start], err
	}
	return dst, nil
}

// describe names a type in an error.
func (t *Types) describe(oid uint32) string {
	if name := t.Name(oid); name != "" {
		return name
	}
	return fmt.Sprintf("OID %d", oid)
}

// ValueError says where the text of a value is not what its type prints. It does
// not contain any part of the value.
type ValueError struct {
	Type   string // of the whole value
	Offset int    // byte of the text; inside a quoted element that has escapes, where that element begins
	Err    error
}

// Error names the type and the offset.
func (e *ValueError) Error() string {
	return fmt.Sprintf("value of type %s: at byte %d: %v", e.Type, e.Offset, e.Err)
}

// Unwrap gives the reason.
func (e *ValueError) Unwrap() error { return e.Err }

// ErrAttributes means that a composite value has more or fewer fields than its
// type was registered with: the type was altered.
var ErrAttributes = errors.New("wrong number of fields")

// The other errors that a text can have.
var (
	errNumber     = errors.New("not a number")
	errBool       = errors.New("neither t nor f")
	errEmptyJSON  = errors.New("empty json")
	errUTF8       = errors.New("not valid UTF-8")
	errDeep       = errors.New("nested too deeply")
	errDate       = errors.New("not a date in ISO form")
	errTimestamp  = errors.New("not a timestamp in ISO form")
	errNotUTC     = errors.New("timestamp is not in UTC")
	errArray      = errors.New("malformed array")
	errDimensions = errors.New("array is not rectangular or has too many dimensions")
	errComposite  = errors.New("malformed composite")
	errHstore     = errors.New("malformed hstore")
	errQuote      = errors.New("unclosed quote")
)

// fault returns an error at an offset of the present text.
func fault(offset int, err error) *ValueError {
	return &ValueError{Offset: offset, Err: err}
}

// shift converts the error of a part into an error of the enclosing text. An
// offset inside an unquoted part has no meaning there, so shift drops it.
func (e *ValueError) shift(offset int, unquoted bool) *ValueError {
	if unquoted {
		e.Offset = 0
	}
	e.Offset += offset
	return e
}

// maxNesting bounds types inside types. No value comes near it, since each level
// doubles the quotes. It also ends the recursion in a registry with a cycle.
const maxNesting = 64

// append writes a value of any type. It tries the most common types first, which
// need no look-up.
func (t *Types) append(dst []byte, oid uint32, text []byte, depth int) ([]byte, *ValueError) {
	switch oid {
	case 20, 21, 23, 1700: // int8, int2, int4, numeric
		return appendNumber(dst, text)
	case 25, 1043, 2950: // text, varchar, uuid
		return appendText(dst, text)
	}
	typ := t.byOID[oid]
	if typ == nil {
		return appendText(dst, text)
	}
	switch typ.Kind {
	case TypeNumber:
		return appendNumber(dst, text)
	case TypeBool:
		return appendBool(dst, text)
	case TypeJSON:
		return appendVerbatim(dst, text)
	case TypeDate:
		return appendDate(dst, text)
	case TypeTimestamp:
		return appendTimestamp(dst, text, false)
	case TypeTimestampTZ:
		return appendTimestamp(dst, text, true)
	case TypeChar:
		return appendChar(dst, text)
	case TypeHstore:
		return t.appendHstore(dst, text)
	case TypeArray, TypeVector, TypeComposite, TypeDomain:
		if depth == maxNesting {
			return dst, fault(0, errDeep)
		}
		return t.appendNested(dst, typ, text, depth+1)
	}
	return appendText(dst, text)
}

func (t *Types) appendNested(dst []byte, typ *registeredType, text []byte, depth int) ([]byte, *ValueError) {
	switch typ.Kind {
	case TypeArray:
		return t.appendArray(dst, typ, text, depth)
	case TypeVector:
		return t.appendVector(dst, typ, text, depth)
	case TypeComposite:
		return t.appendComposite(dst, typ, text, depth)
	}
	return t.append(dst, typ.Base, text, depth)
}

func appendText(dst, text []byte) ([]byte, *ValueError) {
	if !utf8.Valid(text) {
		return dst, fault(invalidAt(text), errUTF8)
	}
	return AppendString(dst, text), nil
}

func appendVerbatim(dst, text []byte) ([]byte, *ValueError) {
	if len(text) == 0 {
		return dst, fault(0, errEmptyJSON)
	}
	if !utf8.Valid(text) {
		return dst, fault(invalidAt(text), errUTF8)
	}
	return append(dst, text...), nil
}

func invalidAt(text []byte) int {
	i := 0
	for i < len(text) {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size <= 1 {
			break
		}
		i += size
	}
	return i
}

func appendBool(dst, text []byte) ([]byte, *ValueError) {
	if len(text) == 1 {
		switch text[0] {
		case 't':
			return append(dst, "true"...), nil
		case 'f':
			return append(dst, "false"...), nil
		}
	}
	return dst, fault(0, errBool)
}

// appendChar writes the type "char": one byte, or none for zero.
func appendChar(dst, text []byte) ([]byte, *ValueError) {
	if len(text) == 1 && text[0] >= utf8.RuneSelf {
		c := text[0]
		return append(dst, '"', '\\', '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7, '"'), nil
	}
	return appendText(dst, text)
}

// appendNumber writes a number as PostgreSQL printed it, with every digit and
// trailing zero. JSON has no NaN and no infinities, so they become strings.
func appendNumber(dst, text []byte) ([]byte, *ValueError) {
	if end := scanNumber(text); end != len(text) || end == 0 {
		switch string(text) {
		case "NaN", "Infinity", "-Infinity":
			return AppendString(dst, text), nil
		}
		return dst, fault(end, errNumber)
	}
	return append(dst, text...), nil
}

// scanNumber returns how many bytes of text are a number in JSON's grammar
// (RFC 8259 §6). It is the length of text when all of it is a number.
func scanNumber(text []byte) int {
	i := 0
	if i < len(text) && text[i] == '-' {
		i++
	}
	if i < len(text) && text[i] == '0' {
		i++
	} else {
		digits := scanDigits(text, i)
		if digits == i {
			return 0
		}
		i = digits
	}
	if i < len(text) && text[i] == '.' {
		digits := scanDigits(text, i+1)
		if digits == i+1 {
			return i
		}
		i = digits
	}
	if i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		exponent := i + 1
		if exponent < len(text) && (text[exponent] == '+' || text[exponent] == '-') {
			exponent++
		}
		digits := scanDigits(text, exponent)
		if digits == exponent {
			return i
		}
		i = digits
	}
	return i
}

// scanDigits returns the index of the first byte from i on that is not a digit.
func scanDigits(text []byte, i int) int {
	for i < len(text) && '0' <= text[i] && text[i] <= '9' {
		i++
	}
	return i
}

// to_json writes dates and times in ISO 8601 (XSD) form, which differs from
// DateStyle ISO in the T before the time of day and in the minutes of the
// zone. Years have four digits or more; years before Christ end in " BC".

// appendDate writes a date.
func appendDate(dst, text []byte) ([]byte, *ValueError) {
	if isInfinite(text) {
		return AppendString(dst, text), nil
	}
	end, ok := scanDate(text)
	if !ok || !isEra(text[end:]) {
		return dst, fault(end, errDate)
	}
	dst = append(dst, '"')
	dst = append(dst, text...)
	return append(dst, '"'), nil
}

// appendTimestamp writes a time stamp, without or with a zone. The zone is UTC,
// because the session's TimeZone is UTC.
func appendTimestamp(dst, text []byte, zone bool) ([]byte, *ValueError) {
	if isInfinite(text) {
		return AppendString(dst, text), nil
	}
	date, ok := scanDate(text)
	if !ok || date == len(text) || text[date] != ' ' {
		return dst, fault(date, errTimestamp)
	}
	clock, ok := scanClock(text, date+1)
	if !ok {
		return dst, fault(clock, errTimestamp)
	}
	end := clock
	if zone {
		if len(text)-end < 3 || string(text[end:end+3]) != "+00" {
			return dst, fault(end, errNotUTC)
		}
		end += 3
	}
	if !isEra(text[end:]) {
		if zone && text[end] == ':' {
			return dst, fault(clock, errNotUTC)
		}
		return dst, fault(end, errTimestamp)
	}
	dst = append(dst, '"')
	dst = append(dst, text[:date]...)
	dst = append(dst, 'T')
	dst = append(dst, text[date+1:clock]...)
	if zone {
		dst = append(dst, "+00:00"...)
	}
	dst = append(dst, text[end:]...)
	return append(dst, '"'), nil
}

func isInfinite(text []byte) bool {
	return string(text) == "infinity" || string(text) == "-infinity"
}

func isEra(text []byte) bool {
	return len(text) == 0 || string(text) == " BC"
}

// scanDate finds the end of a date such as 2024-02-29 at the beginning of text, or
// the byte at which text stops being a date.
func scanDate(text []byte) (end int, ok bool) {
	end = scanDigits(text, 0)
	if end < 4 {
		return end, false
	}
	for range 2 {
		if end, ok = scanPair(text, end, '-'); !ok {
			return end, false
		}
	}
	return end, true
}

// scanClock finds the end of a time of day such as 12:34:56.789 that begins at i.
func scanClock(text []byte, i int) (end int, ok bool) {
	end = scanDigits(text, i)
	if end != i+2 {
		return end, false
	}
	for range 2 {
		if end, ok = scanPair(text, end, ':'); !ok {
			return end, false
		}
	}
	if end < len(text) && text[end] == '.' {
		fraction := scanDigits(text, end+1)
		return fraction, fraction > end+1
	}
	return end, true
}

// scanPair reads a separator and two digits.
func scanPair(text []byte, i int, separator byte) (end int, ok bool) {
	if i == len(text) || text[i] != separator {
		return i, false
	}
	end = scanDigits(text, i+1)
	return end, end == i+3
}
