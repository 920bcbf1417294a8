package catalog

import (
	"fmt"
	"slices"
	"strings"
)

// Hook is an event that is no row: what the phone system's own software emits,
// and what is told of it.
type Hook struct {
	// Name is what webhooks ask for.
	Name string
	// Groups are hooks by which a webhook asks for several at once. An event
	// that was emitted as one of them, with this hook's name for its type, is
	// this hook's.
	Groups []string
	// Description is for account users.
	Description string
	// Format is the body's form where the webhook says nothing: json or form.
	Format string
	// Empty says that fields which a payload lacks are sent as empty text;
	// otherwise they are absent.
	Empty bool
	// Extra says that members of the payload that no field names follow the
	// fields, in their own order.
	Extra bool
	// Order names the payload's member that says what the event is about: those
	// with the same value reach a webhook in commit order. "" is none.
	Order string
	// Fields is what the body holds, in this order.
	Fields []HookField
	// Targets are what a webhook may be bound to.
	Targets []HookTarget
	// Variants are other fields and targets, chosen by what a payload says.
	Variants *HookVariants
}

// HookField is one member of a hook's body.
type HookField struct {
	Name   string
	Source HookSource
	Key    string  // FromPayload: the payload's member
	Value  Literal // FromValue
	About  string  // for account users; may be empty
}

// HookSource says where a field of a hook comes from.
type HookSource byte

// The sources.
const (
	FromPayload   HookSource = iota + 1
	FromHook                 // the hook's name
	FromAccountID            // the id of the account that it happened in
	FromGregorian            // when it happened, in seconds since the year 0
	FromValue
)

var hookSources = map[string]HookSource{"payload": FromPayload, "hook": FromHook, "account": FromAccountID, "gregorian": FromGregorian}

// HookTarget says which members of a payload name the number, extension, ring
// group or queue that an event is about.
type HookTarget struct {
	Kind string
	Keys []string
}

var targetKinds = []string{"number", "extension", "ringGroup", "queue"}

// TargetKinds lists what a webhook can be bound to.
func TargetKinds() []string { return slices.Clone(targetKinds) }

// HookVariants are the forms of a hook, told apart by one member of the payload.
type HookVariants struct {
	Key string
	Of  []HookVariant
}

// HookVariant is one form of a hook.
type HookVariant struct {
	Value   string
	Fields  []HookField
	Targets []HookTarget
}

// The hooks that are no event's name: the record feed, and every event.
const (
	hookRecords = "records"
	hookAll     = "all"
)

// Hook finds a hook by name; nil when there is none.
func (c *Catalog) Hook(name string) *Hook { return c.byHook[name] }

// Hooks lists the hooks of emitted events, in the order of the file.
func (c *Catalog) Hooks() []*Hook { return c.hooks }

// HookNames lists every name that a webhook may ask for, in order: records, all,
// the events, those that rules derive, and the groups of both.
func (c *Catalog) HookNames() []string {
	names := []string{hookRecords, hookAll}
	for _, h := range c.hooks {
		names = append(append(names, h.Name), h.Groups...)
	}
	for _, d := range c.derived {
		names = append(append(names, d.Hook), d.Groups...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// indexHooks builds the look-up table and lists everything that is wrong.
func (c *Catalog) indexHooks() []error {
	var faults []error
	fault := func(h *Hook, format string, args ...any) {
		faults = append(faults, fmt.Errorf("hook %s: "+format, append([]any{h.Name}, args...)...))
	}
	c.byHook = map[string]*Hook{}
	for _, h := range c.hooks {
		c.byHook[h.Name] = h
		for _, name := range append([]string{h.Name}, h.Groups...) {
			if !isSchemaName(name) || name == hookRecords || name == hookAll {
				fault(h, "name %q: want a-z, A-Z, 0-9, _ . and -, and neither records nor all", name)
			}
		}
		if h.Format != "json" && h.Format != "form" {
			fault(h, "format %q: want json or form", h.Format)
		}
		if len(h.Fields) == 0 && h.Variants == nil {
			fault(h, "fields is empty")
		}
	}
	for _, d := range c.derived {
		if h := c.byHook[d.Hook]; h != nil {
			fault(h, "a rule of derive makes events of that name too")
		}
	}
	return faults
}

// isTarget says whether a name is one of what webhooks can be bound to.
func isTarget(kind string) bool { return slices.Contains(targetKinds, kind) }

func wantTargets() string { return "want " + strings.Join(targetKinds, ", ") }
