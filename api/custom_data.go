package api

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode"
)

// Bounds of custom_data, which every event carries.
const (
	maxCustomBytes = 16 << 10
	maxCustomKey   = 128
	maxCustomDepth = 8
)

// customData returns the text to store, with every number as it was written; nil for
// an empty object.
func customData(text json.RawMessage, wrong faults) []byte {
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		wrong.add("custom_data", kindInvalid, "%v", err)
		return nil
	}
	if compact.Len() > maxCustomBytes {
		wrong.add("custom_data", kindInvalid, "is larger than %d bytes", maxCustomBytes)
		return nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil || len(members) == 0 {
		return nil // huma has checked that it is an object
	}
	for key := range members {
		if key == "" || len(key) > maxCustomKey {
			wrong.add("custom_data", kindInvalid, "has an empty key, or one longer than %d bytes", maxCustomKey)
			return nil
		}
	}
	if fault := customFault(compact.Bytes()); fault != "" {
		wrong.add("custom_data", kindInvalid, "%s", fault)
		return nil
	}
	return compact.Bytes()
}

// customFault checks every key and string.
func customFault(text []byte) string {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	for depth := 0; ; {
		token, err := decoder.Token()
		if err != nil {
			return ""
		}
		switch t := token.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				depth++
			} else {
				depth--
			}
			if depth > maxCustomDepth {
				return "is nested more than 8 levels deep"
			}
		case string:
			if hasControl(t) {
				return "contains a control character"
			}
		}
	}
}

func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }
