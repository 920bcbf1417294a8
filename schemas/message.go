package schemas

import (
	"fmt"
	"slices"
	"strings"
)

// The prefixes of the logical messages that walhook takes by default: one for
// results and one for events.
const (
	MessagePrefix = "walhook"
	EventPrefix   = "walhook.event"
)

// Messages lists the prefixes of the logical messages that walhook takes. Nil
// stands for the two defaults; an empty list takes none.
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

// Take reports whether walhook takes messages of a prefix.
func (m Messages) Take(prefix string) bool {
	if m == nil {
		return prefix == MessagePrefix || prefix == EventPrefix
	}
	return slices.Contains(m, prefix)
}

// Off reports whether walhook takes no messages at all.
func (m Messages) Off() bool { return m != nil && len(m) == 0 }

// CarriesEvents reports whether messages of a prefix carry events: the prefix ends
// in ".event". Messages of every other prefix carry results.
func CarriesEvents(prefix string) bool { return strings.HasSuffix(prefix, ".event") }
