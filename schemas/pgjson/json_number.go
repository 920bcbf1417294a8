package pgjson

// appendNumber writes a number as PostgreSQL printed it, with every digit and
// trailing zero. JSON has no word for NaN and the infinities: they become
// strings.
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

// scanNumber is how far text is a number by JSON's grammar (RFC 8259 §6): its
// length when all of it is, otherwise the byte at which it stops being one.
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

// scanDigits is the first byte from i on that is no digit.
func scanDigits(text []byte, i int) int {
	for i < len(text) && '0' <= text[i] && text[i] <= '9' {
		i++
	}
	return i
}
