package schemas

import (
	"fmt"
	"slices"
	"strings"
)

// The prefixes of the logical messages that are taken where nothing else is
// set: results come under one, events under the other.
const (
	MessagePrefix = "walhook"
	EventPrefix   = "walhook.event"
)

// Messages are the prefixes of the logical messages that are taken. Nil takes
// the two default ones; an empty list takes none.
type Messages []string

// maxMessages and maxPrefixBytes bound the setting.
const (
	maxMessages    = 16
	maxPrefixBytes = 200
)

// Validate says what is wrong with a list of prefixes.
func (m Messages) Validate() error {
	if len(m) > maxMessages {
		return fmt.Errorf("%d prefixes, want at most %d", len(m), maxMessages)
	}
	for _, prefix := range m {
		if prefix == "" || len(prefix) > maxPrefixBytes || strings.ContainsFunc(prefix, func(c rune) bool { return c <= ' ' || c == 0x7f || c == ',' }) {
			return fmt.Errorf("prefix %q: want 1 to %d characters without blanks and commas", prefix, maxPrefixBytes)
		}
	}
	return nil
}

// Take says whether messages of a prefix are taken.
func (m Messages) Take(prefix string) bool {
	if m == nil {
		return prefix == MessagePrefix || prefix == EventPrefix
	}
	return slices.Contains(m, prefix)
}

// Off says that no message is taken at all.
func (m Messages) Off() bool { return m != nil && len(m) == 0 }

// CarriesEvents says whether messages of a prefix carry events: its last part
// is ".event". Messages of every other prefix carry results.
func CarriesEvents(prefix string) bool { return strings.HasSuffix(prefix, ".event") }
