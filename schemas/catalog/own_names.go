package catalog

import (
	"fmt"
	"slices"
	"strings"
)

// ownNames are the schemas and hooks of walhook's own events, and the prefixes of
// their ids.
var ownNames = []string{hookRecords, hookAll, "object", nameResync, "test", "webhook", "notice", "day", "gap", "sync"}

// nameResync is the schema of the event with which a resync ends.
const nameResync = "resync"

// groupName is the hook that groups several events, which it distinguishes by their
// type. An async result cannot have it.
const groupName = "notifications"

// ownNamespace is the prefix of the names of walhook's own notices.
const ownNamespace = "webhook."

func inOwnNamespace(name string) bool {
	return len(name) >= len(ownNamespace) && strings.EqualFold(name[:len(ownNamespace)], ownNamespace)
}

// Reserved reports whether walhook refuses a name from outside as the hook of an
// event: the name is walhook's own, or that of a schema or rule of the catalog. Case
// does not matter, so that a receiver that ignores case is not misled.
func (c *Catalog) Reserved(name string) bool {
	is := func(own string) bool { return strings.EqualFold(own, name) }
	return slices.ContainsFunc(ownNames, is) || inOwnNamespace(name) ||
		slices.ContainsFunc(c.Schemas, func(s *Schema) bool { return is(s.Name) }) ||
		slices.ContainsFunc(c.derived, func(d *Derivation) bool { return is(d.Hook) })
}

// ReservedSchema is [Catalog.Reserved] for the schema of an async result.
func (c *Catalog) ReservedSchema(name string) bool {
	return c.Reserved(name) || strings.EqualFold(name, groupName)
}

// nameFaults lists the schemas that have a name of walhook's own. Of those that a receiver
// could not tell from walhook's own events a file is refused. The others are warned of.
func (c *Catalog) nameFaults(p places) (faults Faults) {
	for _, s := range c.Schemas {
		f := p.at(join("schemas", s.Name), "", "choose another name")
		switch own := strings.ToLower(s.Name); {
		case own == nameResync:
			f.Problem = fmt.Sprintf("schema %s: each resync ends with an event of this schema, which receivers could not tell from a record", s.Name)
			f.Tolerated = true
		case inOwnNamespace(s.Name):
			f.Problem = fmt.Sprintf("schema %s: names that begin with %s are those of walhook's notices about a webhook", s.Name, ownNamespace)
			f.Tolerated = true
		case own == hookRecords || own == hookAll || own == hookObject || own == groupName:
			f.Problem = fmt.Sprintf("schema %s: a hook has this name, too, so that people may confuse them", s.Name)
			f.Warning = true
		case own == "test":
			f.Problem = fmt.Sprintf("schema %s: test events have this schema (and the type test), so that receivers may confuse them", s.Name)
			f.Warning = true
		case slices.Contains(ownNames, own):
			f.Problem = fmt.Sprintf("schema %s: walhook uses this name for events of its own, so that people may confuse them", s.Name)
			f.Warning = true
		default:
			continue
		}
		faults = append(faults, f)
	}
	return faults
}
