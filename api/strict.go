package api

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
)

// maxDepth bounds the nesting of a body, whatever its fields allow.
const maxDepth = 32

// maxNumber bounds the digits and the exponent of a number. The outbox stores it as it
// was written, and other programs read it as a PostgreSQL numeric or a float64.
const (
	maxDigits   = 64
	maxExponent = 300
)

// checkStrict rejects valid JSON that cannot be stored, or that parsers read
// differently: half a surrogate pair, U+0000, the same member twice, numbers out of
// range, deep nesting. It names the field of data that contains it.
func checkStrict(body []byte, wrong faults) {
	s := strictScan{text: body}
	if fault := s.run(); fault != "" {
		wrong.add(s.field(), kindInvalid, "%s", fault)
	}
}

// strictScan scans a text once. It does not recurse, since the text may be deeply
// nested.
type strictScan struct {
	text  []byte
	at    int
	stack []level
	key   bool // the next string is a member's name
}

// level is an open object or list.
type level struct {
	members map[string]bool // seen so far; nil for a list
	name    string          // of the last one
}

// field returns the member of data at the present position.
func (s *strictScan) field() string {
	switch {
	case len(s.stack) > 1 && s.stack[0].name == "data" && s.stack[1].name != "":
		return s.stack[1].name
	case len(s.stack) > 0 && s.stack[0].name != "":
		return s.stack[0].name
	}
	return "body"
}

func (s *strictScan) run() string {
	for s.at < len(s.text) {
		c := s.text[s.at]
		switch {
		case c == '{' || c == '[':
			if len(s.stack) == maxDepth {
				return "is nested deeper than " + strconv.Itoa(maxDepth) + " levels"
			}
			var one level
			if s.key = c == '{'; s.key {
				one.members = map[string]bool{}
			}
			s.stack = append(s.stack, one)
		case c == '}' || c == ']':
			s.stack = s.stack[:len(s.stack)-1]
			s.key = false
		case c == ',':
			s.key = s.stack[len(s.stack)-1].members != nil
		case c == '"':
			if fault := s.string(); fault != "" {
				return fault
			}
			continue
		case c == '-' || c >= '0' && c <= '9':
			if fault := s.number(); fault != "" {
				return fault
			}
			continue
		}
		s.at++
	}
	return ""
}

// string scans one string, quotes included.
func (s *strictScan) string() string {
	start := s.at
	for s.at++; s.text[s.at] != '"'; s.at++ {
		if s.text[s.at] != '\\' {
			continue
		}
		if s.at++; s.text[s.at] != 'u' {
			continue
		}
		first := s.unit()
		switch {
		case first == 0:
			return "contains the character U+0000, which cannot be stored"
		case !utf16.IsSurrogate(first):
			continue
		case s.at+2 < len(s.text) && s.text[s.at+1] == '\\' && s.text[s.at+2] == 'u':
			s.at += 2
			if utf16.DecodeRune(first, s.unit()) != '\uFFFD' {
				continue
			}
		}
		return "contains half a surrogate pair (half an emoji, as from cutting a string), which is not a character"
	}
	s.at++
	if !s.key {
		return ""
	}
	s.key = false
	var name string
	if json.Unmarshal(s.text[start:s.at], &name) != nil {
		return "has a member whose name cannot be parsed"
	}
	object := &s.stack[len(s.stack)-1]
	object.name = name
	if object.members[name] {
		return "has the member " + printable(name) + " twice"
	}
	object.members[name] = true
	return ""
}

// unit returns the code unit of \uXXXX. It moves at from the u to the last digit.
func (s *strictScan) unit() rune {
	n, err := strconv.ParseUint(string(s.text[s.at+1:s.at+5]), 16, 16)
	if err != nil {
		return 0 // cannot happen in valid JSON
	}
	s.at += 4
	return rune(n)
}

func (s *strictScan) number() string {
	start := s.at
	for s.at < len(s.text) && strings.IndexByte("+-.eE0123456789", s.text[s.at]) >= 0 {
		s.at++
	}
	mantissa, exponent, scientific := strings.Cut(strings.ToLower(string(s.text[start:s.at])), "e")
	if len(mantissa) > maxDigits {
		return "contains a number of more than " + strconv.Itoa(maxDigits) + " digits"
	}
	if n, err := strconv.ParseFloat(string(s.text[start:s.at]), 64); err != nil || math.IsInf(n, 0) {
		return "contains a number that is out of range"
	}
	if scientific {
		if n, err := strconv.Atoi(exponent); err != nil || n > maxExponent || n < -maxExponent {
			return "contains a number that is out of range"
		}
	}
	return ""
}
