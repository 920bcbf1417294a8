package pgjson

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

// appendTimestamp writes a time stamp, without or with a zone. The zone is
// UTC, as the session is.
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

// scanDate finds the end of 2024-02-29 at the beginning of text, or where it
// is no such thing.
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

// scanClock finds the end of 12:34:56.789 from i on.
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

// scanPair takes a separator and two digits.
func scanPair(text []byte, i int, separator byte) (end int, ok bool) {
	if i == len(text) || text[i] != separator {
		return i, false
	}
	end = scanDigits(text, i+1)
	return end, end == i+3
}
