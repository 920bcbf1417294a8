package catalog

import (
	_ "embed"
	"slices"

	"go.yaml.in/yaml/v3"
)

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
				p.fault(member[1], "hook %s: like %q: want a hook that comes before it", h.Name, name)
				continue
			}
			h.Format, h.Empty, h.Order, h.Targets = hooks[i].Format, hooks[i].Empty, hooks[i].Order, hooks[i].Targets
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
		h.Targets = p.hookTargets(node)
	case "fields":
		h.Fields = p.hookFields(h.Fields, node)
	case "variants":
		h.Variants = p.hookVariants(node)
	default:
		p.fault(key, "hook %s: %s is not known", h.Name, key.Value)
	}
}

func (p *parser) hookTargets(node *yaml.Node) []HookTarget {
	var targets []HookTarget
	for _, pair := range p.pairs(node, "targets: want a map of kind to member of the payload") {
		if !isTarget(pair[0].Value) {
			p.fault(pair[0], "target %s: %s", pair[0].Value, wantTargets())
		}
		targets = append(targets, HookTarget{Kind: pair[0].Value, Keys: p.texts(pair[1], "target "+pair[0].Value)})
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
						p.fault(part[0], "variant %s: %s is not known", one.Value, part[0].Value)
					}
				}
				v.Of = append(v.Of, one)
			}
		default:
			p.fault(member[0], "variants: %s is not known", member[0].Value)
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
	for _, pair := range p.pairs(node, "fields: want a map of field to where it comes from") {
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
	for _, member := range p.pairs(node, "field "+name+": want where it comes from") {
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
			p.fault(member[0], "field %s: %s is not known", name, member[0].Value)
		}
	}
	if f.Source == 0 {
		p.fault(node, "field %s: want from or value", name)
	}
	return f
}
