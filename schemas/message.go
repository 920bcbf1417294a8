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

// ownNames are the schemas and hooks that walhook makes by itself, and what the
// ids of such events begin with.
var ownNames = []string{hookRecords, hookAll, "object", "resync", "test", "webhook", "notice", "day", "gap", "sync"}

// groupName is the hook that stands for many: an event comes under it by its
// type, a result never.
const groupName = "notifications"

// ownNamespace begins the names of walhook's own notices.
const ownNamespace = "webhook."

// Reserved says whether a name is never taken from outside, neither as the
// schema of a result nor as the hook of an event: walhook's own names, and those
// of the catalog's records and rules. Receivers that fold case are not misled
// either.
func (c *Catalog) Reserved(name string) bool {
	is := func(own string) bool { return strings.EqualFold(own, name) }
	return slices.ContainsFunc(ownNames, is) ||
		len(name) >= len(ownNamespace) && strings.EqualFold(name[:len(ownNamespace)], ownNamespace) ||
		slices.ContainsFunc(c.Schemas, func(s *Schema) bool { return is(s.Name) }) ||
		slices.ContainsFunc(c.derived, func(d *Derivation) bool { return is(d.Hook) })
}

// ReservedSchema is Reserved for the schema of a result.
func (c *Catalog) ReservedSchema(name string) bool {
	return c.Reserved(name) || strings.EqualFold(name, groupName)
}
