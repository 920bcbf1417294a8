package catalog

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Hook is the definition of an emitted event: an event of the carrier's software
// that is not a row, and what its body holds.
type Hook struct {
	// Name is the hook to which webhooks subscribe.
	Name string
	// Groups are hooks by which a webhook subscribes to several at once. An event
	// that is emitted under a group, with this hook's name as its type, belongs to
	// this hook.
	Groups []string
	// Description is for account users.
	Description string
	// Format is the body's form unless the webhook sets one: json or form.
	Format string
	// Empty makes a field that the payload lacks empty text; otherwise the field is
	// absent.
	Empty bool
	// Extra appends the payload's members that no field names, in their own order.
	Extra bool
	// Order names a member of the payload. Events with the same value of it reach a
	// webhook in commit order. "" stands for no order.
	Order string
	// Fields are the members of the body, in this order.
	Fields []HookField
	// targets are the kinds of object that a webhook may be bound to.
	targets []hookTarget
	// Variants are other fields and targets, selected by a member of the payload.
	Variants *HookVariants
}

// HookField is one member of a hook's body.
type HookField struct {
	Name   string
	Source HookSource
	Key    string  // FromPayload: the payload's member
	Value  literal // FromValue
	About  string  // description for account users; may be empty
}

// HookSource says where a field of a hook comes from.
type HookSource byte

// The sources.
const (
	FromPayload   HookSource = iota + 1
	FromHook                 // the hook's name
	FromAccountID            // the id of the event's account
	FromGregorian            // the time of the event, in seconds since the year 0
	FromValue
)

var hookSources = map[string]HookSource{"payload": FromPayload, "hook": FromHook, "account": FromAccountID, "gregorian": FromGregorian}

// hookTarget says which members of a payload hold the number, extension, ring group
// or queue of an event.
type hookTarget struct {
	Kind string
	Keys []string
}

var targetKinds = []string{"number", "extension", "ringGroup", "queue"}

// HookVariants are the forms of a hook, selected by one member of the payload.
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

// The two hooks that are not the name of one event: the record feed, and every event.
const (
	hookRecords = "records"
	hookAll     = "all"
)

// Hook finds a hook by name; nil when there is none.
func (c *Catalog) Hook(name string) *Hook { return c.byHook[name] }

// Hooks lists the hooks of emitted events, in the order of the file.
func (c *Catalog) Hooks() []*Hook { return c.hooks }

// HookNames lists every name to which a webhook may subscribe, in order: records,
// all, the emitted events, the derived events, and the groups of both.
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

// indexHooks builds the look-up table and lists the faults of the hooks.
func (c *Catalog) indexHooks(p places) Faults {
	var faults Faults
	fault := func(path, format string, args ...any) {
		faults = append(faults, p.at(path, fmt.Sprintf(format, args...), ""))
	}
	c.byHook = map[string]*Hook{}
	for _, h := range c.hooks {
		c.byHook[h.Name] = h
		at := join("hooks", h.Name)
		for i, name := range append([]string{h.Name}, h.Groups...) {
			if !isSchemaName(name) || name == hookRecords || name == hookAll {
				path := at
				if i > 0 {
					path = fmt.Sprintf("%s.groups[%d]", at, i-1)
				}
				fault(path, "name %q: want a-z, A-Z, 0-9, _ . and -, and neither records nor all", cut(name))
			}
		}
		if h.Format != "json" && h.Format != "form" {
			fault(join(at, "format"), "format %q: want json or form", cut(h.Format))
		}
		if len(h.Fields) == 0 && h.Variants == nil {
			fault(join(at, "fields"), "fields is empty: want a map of field to source, such as {call_id: payload}")
		}
	}
	for i, d := range c.derived {
		if c.byHook[d.Hook] != nil {
			fault(fmt.Sprintf("derive[%d].hook", i), "hook %s is also an event under hooks, or a built-in one: give the rule another name", d.Hook)
		}
	}
	return faults
}

// isTarget reports whether webhooks can be bound to a kind of object.
func isTarget(kind string) bool { return slices.Contains(targetKinds, kind) }

func wantTargets() string { return "want " + strings.Join(targetKinds, ", ") }

//go:embed hooks.yaml
var hooksYAML []byte

// builtInHooks are the hooks of a catalog that defines none.
func (p *parser) builtInHooks() []*Hook {
	var document yaml.Node
	if err := yaml.Unmarshal(hooksYAML, &document); err != nil {
		panic("built-in hooks: " + err.Error()) // a test parses them
	}
	return p.hooks(document.Content[0])
}

// hooks reads the file's hooks. A hook may extend an earlier one with "like": it then
// begins with that hook's fields and inherits what it does not set.
func (p *parser) hooks(node *yaml.Node) []*Hook {
	var hooks []*Hook
	for _, pair := range p.pairs(node, "want a map of hooks by name") {
		h := &Hook{Name: pair[0].Value, Format: "json"}
		members := p.pairs(pair[1], "want a map with fields, and what else the hook has")
		for _, member := range members {
			if member[0].Value != "like" {
				continue
			}
			name := p.text(member[1], "like")
			i := slices.IndexFunc(hooks, func(other *Hook) bool { return other.Name == name })
			if i < 0 {
				earlier := make([]string, len(hooks))
				for j := range hooks {
					earlier[j] = hooks[j].Name
				}
				p.wrong(member[1], fmt.Sprintf("like %q: want an earlier hook", cut(name)), didYouMean(name, earlier))
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
			p.fault(node, "want empty or absent")
		}
	case "extra":
		if err := node.Decode(&h.Extra); err != nil {
			p.fault(node, "want true or false")
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
		p.unknown(key, "like", "description", "groups", "format", "missing", "extra", "order", "targets", "fields", "variants")
	}
}

func (p *parser) hookTargets(node *yaml.Node) []hookTarget {
	var targets []hookTarget
	for _, pair := range p.pairs(node, "want a map of kind to member of the payload") {
		if !isTarget(pair[0].Value) {
			p.wrong(pair[0], wantTargets(), didYouMean(pair[0].Value, targetKinds))
		}
		targets = append(targets, hookTarget{Kind: pair[0].Value, Keys: p.texts(pair[1], "target "+pair[0].Value)})
	}
	return targets
}

func (p *parser) hookVariants(node *yaml.Node) *HookVariants {
	v := &HookVariants{}
	for _, member := range p.pairs(node, "want key and of") {
		switch member[0].Value {
		case "key":
			v.Key = p.text(member[1], "key")
		case "of":
			for _, pair := range p.pairs(member[1], "want a map of value to fields and targets") {
				one := HookVariant{Value: pair[0].Value}
				for _, part := range p.pairs(pair[1], "want a map with fields and targets") {
					switch part[0].Value {
					case "fields":
						one.Fields = p.hookFields(nil, part[1])
					case "targets":
						one.Targets = p.hookTargets(part[1])
					default:
						p.unknown(part[0], "fields", "targets")
					}
				}
				v.Of = append(v.Of, one)
			}
		default:
			p.unknown(member[0], "key", "of")
		}
	}
	if v.Key == "" || len(v.Of) == 0 {
		p.fault(node, "want key and of")
	}
	return v
}

// hookFields appends fields to others; a field of the same name replaces the other in
// its place.
func (p *parser) hookFields(fields []HookField, node *yaml.Node) []HookField {
	for _, pair := range p.pairs(node, "want a map of field to source") {
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
		text := p.text(node, "field "+name)
		source, known := hookSources[text]
		if !known && text != "" {
			p.wrong(node, fmt.Sprintf("%s: want payload, hook, account or gregorian", cut(text)), didYouMean(text, []string{"payload", "hook", "account", "gregorian"}))
		}
		f.Source = source
	}
	if node.Kind == yaml.ScalarNode {
		from(node)
		return f
	}
	before := len(p.faults)
	for _, member := range p.pairs(node, "want payload, hook, account or gregorian, or a map with from or value") {
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
			p.unknown(member[0], "from", "key", "value", "about")
		}
	}
	if f.Source == 0 && len(p.faults) == before {
		p.fault(node, "want from or value")
	}
	return f
}
