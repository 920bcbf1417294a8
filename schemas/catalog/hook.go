package catalog

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
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
	targets []hookTarget
	// Variants are other fields and targets, chosen by what a payload says.
	Variants *HookVariants
}

// HookField is one member of a hook's body.
type HookField struct {
	Name   string
	Source HookSource
	Key    string  // FromPayload: the payload's member
	Value  literal // FromValue
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

// hookTarget says which members of a payload name the number, extension, ring
// group or queue that an event is about.
type hookTarget struct {
	Kind string
	Keys []string
}

var targetKinds = []string{"number", "extension", "ringGroup", "queue"}

// HookVariants are the forms of a hook, told apart by one member of the payload.
type HookVariants struct {
	Key string
	Of  []HookVariant
}

// HookVariant is one form of a hook.
type HookVariant struct {
	Value   string
	Fields  []HookField
	Targets []hookTarget
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
			fault(h, "a rule of derive also makes events of that name")
		}
	}
	return faults
}

// isTarget says whether a name is one of what webhooks can be bound to.
func isTarget(kind string) bool { return slices.Contains(targetKinds, kind) }

func wantTargets() string { return "want " + strings.Join(targetKinds, ", ") }

//go:embed hooks.yaml
var hooksYAML []byte

// builtInHooks are those of a catalog that names none.
func (p *parser) builtInHooks() []*Hook {
	var document yaml.Node
	if err := yaml.Unmarshal(hooksYAML, &document); err != nil {
		panic("built-in hooks: " + err.Error()) // a test reads them
	}
	return p.hooks(document.Content[0])
}

// hooks reads the file's hooks. One may be like another that comes before it:
// then that one's fields come first, and what it does not say is as there.
func (p *parser) hooks(node *yaml.Node) []*Hook {
	var hooks []*Hook
	for _, pair := range p.pairs(node, "hooks: want a map of hooks by name") {
		h := &Hook{Name: pair[0].Value, Format: "json"}
		members := p.pairs(pair[1], "hook "+h.Name+": want a map")
		for _, member := range members {
			if member[0].Value != "like" {
				continue
			}
			name := p.text(member[1], "like")
			i := slices.IndexFunc(hooks, func(other *Hook) bool { return other.Name == name })
			if i < 0 {
				p.fault(member[1], "hook %s: like %q: want an earlier hook", h.Name, name)
				continue
			}
			h.Format, h.Empty, h.Order, h.targets = hooks[i].Format, hooks[i].Empty, hooks[i].Order, hooks[i].targets
			h.Fields = slices.Clone(hooks[i].Fields)
		}
		for _, member := range members {
			p.hookMember(h, member[0], member[1])
		}
		hooks = append(hooks, h)
	}
	return hooks
}

func (p *parser) hookMember(h *Hook, key, node *yaml.Node) {
	switch key.Value {
	case "like":
	case "description":
		h.Description = p.text(node, "description")
	case "groups":
		h.Groups = p.texts(node, "groups")
	case "format":
		h.Format = p.text(node, "format")
	case "missing":
		switch p.text(node, "missing") {
		case "empty":
			h.Empty = true
		case "absent":
			h.Empty = false
		default:
			p.fault(node, "missing: want empty or absent")
		}
	case "extra":
		if err := node.Decode(&h.Extra); err != nil {
			p.fault(node, "extra: want true or false")
		}
	case "order":
		h.Order = p.text(node, "order")
	case "targets":
		h.targets = p.hookTargets(node)
	case "fields":
		h.Fields = p.hookFields(h.Fields, node)
	case "variants":
		h.Variants = p.hookVariants(node)
	default:
		p.fault(key, "hook %s: unknown key %s", h.Name, key.Value)
	}
}

func (p *parser) hookTargets(node *yaml.Node) []hookTarget {
	var targets []hookTarget
	for _, pair := range p.pairs(node, "targets: want a map of kind to member of the payload") {
		if !isTarget(pair[0].Value) {
			p.fault(pair[0], "target %s: %s", pair[0].Value, wantTargets())
		}
		targets = append(targets, hookTarget{Kind: pair[0].Value, Keys: p.texts(pair[1], "target "+pair[0].Value)})
	}
	return targets
}

func (p *parser) hookVariants(node *yaml.Node) *HookVariants {
	v := &HookVariants{}
	for _, member := range p.pairs(node, "variants: want key and of") {
		switch member[0].Value {
		case "key":
			v.Key = p.text(member[1], "key")
		case "of":
			for _, pair := range p.pairs(member[1], "of: want a map of value to fields and targets") {
				one := HookVariant{Value: pair[0].Value}
				for _, part := range p.pairs(pair[1], "variant "+one.Value+": want a map") {
					switch part[0].Value {
					case "fields":
						one.Fields = p.hookFields(nil, part[1])
					case "targets":
						one.Targets = p.hookTargets(part[1])
					default:
						p.fault(part[0], "variant %s: unknown key %s", one.Value, part[0].Value)
					}
				}
				v.Of = append(v.Of, one)
			}
		default:
			p.fault(member[0], "variants: unknown key %s", member[0].Value)
		}
	}
	if v.Key == "" || len(v.Of) == 0 {
		p.fault(node, "variants: want key and of")
	}
	return v
}

// hookFields reads fields that follow others; one of the same name is in the
// other's place.
func (p *parser) hookFields(fields []HookField, node *yaml.Node) []HookField {
	for _, pair := range p.pairs(node, "fields: want a map of field to source") {
		f := p.hookField(pair[0].Value, pair[1])
		if i := slices.IndexFunc(fields, func(other HookField) bool { return other.Name == f.Name }); i >= 0 {
			fields[i] = f
			continue
		}
		fields = append(fields, f)
	}
	return fields
}

func (p *parser) hookField(name string, node *yaml.Node) HookField {
	f := HookField{Name: name, Key: name}
	from := func(node *yaml.Node) {
		source, known := hookSources[p.text(node, "field "+name)]
		if !known {
			p.fault(node, "field %s: want payload, hook, account or gregorian", name)
		}
		f.Source = source
	}
	if node.Kind == yaml.ScalarNode {
		from(node)
		return f
	}
	for _, member := range p.pairs(node, "field "+name+": want a source") {
		switch member[0].Value {
		case "from":
			from(member[1])
		case "key":
			f.Key = p.text(member[1], "key")
		case "value":
			f.Source, f.Value = FromValue, p.literal(member[1], "field "+name)
		case "about":
			f.About = p.text(member[1], "about")
		default:
			p.fault(member[0], "field %s: unknown key %s", name, member[0].Value)
		}
	}
	if f.Source == 0 {
		p.fault(node, "field %s: want from or value", name)
	}
	return f
}
