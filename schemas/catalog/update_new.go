package catalog

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// added adds what the database has and the file does not know, and writes down what it
// knows now. A file without that comment cannot tell what is new from what was left
// out: what is not in it is proposed in comments then.
func (u *update) added(s *sheet) error {
	c := s.file.catalog
	d, err := u.draft(c, nil)
	if err != nil {
		return err
	}
	if err := u.newTables(s, d, c); err != nil {
		return err
	}
	_, list := member(s.root, "schemas")
	for _, t := range d.usable {
		if one := c.byTable[t.Name]; one != nil {
			if err := u.newColumns(s, list, t, one); err != nil {
				return fmt.Errorf("schemas.%s %w", one.Name, err)
			}
		}
	}
	return u.remember(s, d, c)
}

// newTables writes schemas for tables that the file does not know.
func (u *update) newTables(s *sheet, d *draft, c *Catalog) error {
	var b bytes.Buffer
	for _, t := range d.usable {
		if c.byTable[t.Name] != nil || d.left[t.Name] != "" {
			continue
		}
		var one bytes.Buffer
		d.writeSchema(&one, t)
		if u.ever {
			comment(&b, "  ", fmt.Sprintf("New: table %s.", t.Name))
			b.Write(one.Bytes())
			u.say("schema %s is new", d.names[t.Name])
			continue
		}
		comment(&b, "  ", fmt.Sprintf("Not in this file: table %s. To publish it, remove the first '# ' of each line.", t.Name))
		for line := range strings.Lines(one.String()) {
			b.WriteString("  # " + line[2:])
		}
		u.say("schema %s is proposed in a comment", d.names[t.Name])
	}
	for _, t := range d.inOrder() {
		if d.proposed[t] && !u.block.wasProposed(t) {
			b.WriteString(d.proposal(t))
			u.say("schema %s is proposed in a comment", d.names[t.Name])
		}
	}
	if b.Len() == 0 {
		return nil
	}
	key, list := member(s.root, "schemas")
	switch {
	case key == nil:
		s.insertAfter(len(s.lines)-1, "\nschemas:\n"+b.String())
	case isNull(list), isFlow(list) && len(list.Content) == 0:
		last := s.lastLine(key.Line, indentOf(s.line(key.Line)), list)
		if isFlow(list) {
			f, err := scanFlow(s.text, s.at(list))
			if err != nil {
				return fmt.Errorf("schemas %w", err)
			}
			if u.ever && slices.ContainsFunc(u.notes, isNewSchema) { // proposals alone leave it empty
				s.replace(f.open, f.close+1, "")
			}
		}
		s.insertAfter(last, b.String())
	case list.Kind != yaml.MappingNode || isFlow(list):
		return fmt.Errorf("schemas %w: write each schema in lines of its own", errForm)
	default:
		last := list.Content[len(list.Content)-2]
		indent := indentOf(s.line(last.Line))
		line := s.lastLine(last.Line, indent, list.Content[len(list.Content)-1])
		for next := s.line(line + 1); isComment(next) && indentOf(next) >= indent && indent > 0; next = s.line(line + 1) {
			line++
		}
		s.insertAfter(line, shifted(b.String(), indent-2))
	}
	return nil
}

func isNewSchema(note string) bool {
	return strings.HasPrefix(note, "schema ") && strings.HasSuffix(note, " is new")
}

// shifted moves lines to the right, or to the left.
func shifted(text string, by int) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if by < 0 {
			line = line[min(-by, indentOf(line)):]
		} else {
			b.WriteString(strings.Repeat(" ", by))
		}
		b.WriteString(line)
	}
	return b.String()
}

// newColumns adds columns that the file does not know to a schema's fields, and names
// those that it leaves out.
func (u *update) newColumns(s *sheet, list *yaml.Node, t *Table, one *Schema) error {
	seen, ever := u.block.known[t.Name.String()]
	var fields, secret, unsent, taken []string
	for i := range t.Columns {
		c := &t.Columns[i]
		switch {
		case slices.Contains(seen, c.Name) || slices.ContainsFunc(one.Fields, func(f Field) bool { return f.Column == c.Name }):
		case c.Unsent:
			unsent = append(unsent, c.Name)
		case isSecret(t, c):
			secret = append(secret, c.Name)
		case slices.ContainsFunc(one.Fields, func(f Field) bool { return f.Name == c.Name }):
			taken = append(taken, c.Name)
		default:
			fields = append(fields, c.Name)
		}
	}
	key, node := member(list, one.Name)
	at, value := member(node, "fields")
	if at == nil { // by << from elsewhere
		at = key
	}
	if at == nil {
		return errForm
	}
	note := func(what string, names []string) {
		if len(names) > 0 {
			s.note(at.Line, what+strings.Join(quotedNames(names), ", "))
		}
	}
	if !ever {
		note("Not in the list: ", append(append(fields, taken...), unsent...))
		note("Not in the list, since they look secret: ", secret)
		return nil
	}
	note("New, and left out, since they look secret: ", secret)
	note("New, and left out, since the server does not send generated columns: ", unsent)
	note("New, and left out, since another field has the name: ", taken)
	for _, name := range slices.Concat(secret, unsent, taken) {
		u.say("schema %s: column %s is new, and left out", one.Name, name)
	}
	if len(fields) == 0 {
		return nil
	}
	if value == nil || value.Kind == yaml.AliasNode {
		note("New, and for you to add, since the fields stand elsewhere: ", fields)
		u.say("schema %s: add by hand, since the fields stand elsewhere in the file: %s", one.Name, strings.Join(fields, ", "))
		return nil
	}
	note("New: ", fields)
	u.say("schema %s: new in fields: %s", one.Name, strings.Join(fields, ", "))
	return s.addFields(at, value, fields)
}

// addFields writes columns behind the fields of a schema.
func (s *sheet) addFields(key, value *yaml.Node, names []string) error {
	items := quotedNames(names)
	if value.Kind == yaml.MappingNode {
		for i, name := range items {
			items[i] = name + ": " + name
		}
	}
	if isFlow(value) {
		f, err := scanFlow(s.text, s.at(value))
		if err != nil {
			return err
		}
		s.addItems(f, indentOf(s.line(key.Line))+2, items)
		return nil
	}
	if len(value.Content) == 0 {
		return errForm
	}
	last := value.Content[len(value.Content)-1].Line
	indent, dash := indentOf(s.line(last)), ""
	if value.Kind == yaml.SequenceNode {
		dash = "- "
	}
	var b strings.Builder
	for _, item := range items {
		b.WriteString(strings.Repeat(" ", indent) + dash + item + "\n")
	}
	s.insertAfter(last, b.String())
	return nil
}

// remember writes down what is known now.
func (u *update) remember(s *sheet, d *draft, c *Catalog) error {
	now := d.known()
	for _, t := range u.tables {
		if _, seen := u.block.known[t.Name.String()]; seen || c.byTable[t.Name] != nil {
			now[t.Name.String()] = t.columnNames()
			delete(d.left, t.Name)
		}
	}
	old, err := knownBlock(s.text)
	if err != nil {
		return err
	}
	text := now.text(d.left)
	if old.until > 0 {
		s.replace(old.from, old.until, strings.TrimSuffix(text, "\n"))
		if old.foreign != "" {
			after := old.until + 1
			if after > len(s.text) {
				after, old.foreign = len(s.text), "\n"+old.foreign
			}
			s.replace(after, after, old.foreign)
		}
		return nil
	}
	s.insertAfter(len(s.lines)-1, "\n"+text)
	return nil
}
