package catalog

import (
	"slices"
	"strings"
)

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
