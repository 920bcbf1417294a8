package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"walhook/schemas"
)

// Updated is what [Update] makes of a file.
type Updated struct {
	Text []byte
	// Notes say what is new, what is gone, and what only a person can correct, a line each.
	Notes []string
}

// Update brings a catalog file up to date with the tables of a database. What a person
// wrote stays: names, order, comments, rules, and what they left out. New tables and
// columns are added below a comment. What the database has no more becomes a comment,
// with the reason. The same tables give the same bytes, and a second update of them
// changes nothing. The error is [Faults] where the file has errors of its own.
func Update(text []byte, tables []*Table) (*Updated, error) {
	u := update{tables: tables, text: text, crlf: crlfOnly(text)}
	if u.crlf {
		u.text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	}
	if err := u.run(); err != nil {
		return nil, err
	}
	if u.crlf {
		u.text = bytes.ReplaceAll(u.text, []byte("\n"), []byte("\r\n"))
	}
	return &Updated{u.text, u.notes}, nil
}

func crlfOnly(text []byte) bool {
	n := bytes.Count(text, []byte("\r\n"))
	return n > 0 && n == bytes.Count(text, []byte("\n")) && n == bytes.Count(text, []byte("\r"))
}

// update is a file on its way to its tables.
type update struct {
	tables []*Table
	text   []byte
	crlf   bool
	block  block
	ever   bool // the file has the comment that says what is known
	notes  []string
	want   *Catalog // what the result has to say
}

func (u *update) say(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(u.notes, text) {
		u.notes = append(u.notes, text)
	}
}

func (u *update) run() error {
	s, err := newSheet(u.text)
	if err != nil {
		return err
	}
	if faults := s.file.Faults(); len(faults) > 0 {
		return faults
	}
	u.want = s.file.catalog
	block, err := knownBlock(u.text)
	if err != nil {
		return err
	}
	u.block, u.ever = block, block.until > 0
	// What is gone may take with it what was owned through it, so once is not enough.
	for passes, changed := 0, true; changed; passes++ {
		if changed, err = u.pass(u.gone); err != nil {
			return err
		}
		if passes > 10+10*len(u.want.Schemas) {
			return u.unsettled()
		}
	}
	if _, err := u.pass(u.added); err != nil {
		return err
	}
	return u.verify()
}

// unsettled is the error for a file in which each edit of a place needs another one.
func (u *update) unsettled() error {
	file := Read(u.text)
	file.Compare(u.tables)
	if faults := file.Faults(); len(faults) > 0 {
		return fmt.Errorf("%s: %s; correct it by hand: --update finds no edit of that place that holds", faults[0].Path, faults[0].Problem)
	}
	return fmt.Errorf("the file %w: an edit of it does not hold", errForm)
}

// pass edits the file once, and says whether that changed it.
func (u *update) pass(edit func(*sheet) error) (changed bool, err error) {
	s, err := newSheet(u.text)
	if err != nil {
		return false, err
	}
	if err := edit(s); err != nil {
		return false, err
	}
	text, err := s.done()
	if err != nil {
		return false, err
	}
	changed = !bytes.Equal(text, u.text)
	u.text = text
	return changed, nil
}

// draft is a draft of the database in which the schemas of the file are as they are. A
// schema in loose has no owner yet: neither it nor what is owned through it, which can be
// nobody's owner, leads to an account.
func (u *update) draft(c *Catalog, loose map[string]bool) (*draft, error) {
	d := newDraft(u.tables)
	d.depth, d.parents, d.given = map[schemas.TableName]int{}, map[schemas.TableName]bool{}, map[schemas.TableName]way{}
	for _, s := range c.Schemas {
		if parent := c.byName[s.Owner.Schema]; parent != nil {
			d.parents[parent.Table] = true
		}
	}
	for _, t := range u.tables {
		if s := c.byTable[t.Name]; s != nil {
			d.names[t.Name], d.keys[t.Name] = s.Name, s.Key
			if c.below(s, loose) {
				continue
			}
			if !loose[s.Name] {
				d.depth[t.Name] = c.depth(s)
			}
			if t.Kind == "table" {
				d.usable = append(d.usable, t)
			}
			continue
		}
		if _, seen := u.block.known[t.Name.String()]; !seen && !c.Names(t.Name) {
			d.use(t)
		}
	}
	t := d.byName[c.Account.Table]
	switch {
	case t == nil:
		return nil, fmt.Errorf("account.table: %w; name the table of accounts in the file, then update it", d.unfit(c.Account.Table, nil))
	case t.Kind != "table":
		return nil, fmt.Errorf("account.table: %s is a %s, whose rows are not in the WAL; name the table of accounts in the file, then update it", t.Name, t.Kind)
	case t.Column(c.Account.ID) == nil:
		return nil, fmt.Errorf("account.id: table %s has no column %s; name the column of an account's id in the file, then update it", t.Name, c.Account.ID)
	}
	d.account = candidate{table: t, id: c.Account.ID}
	for _, s := range c.Schemas {
		parent := t
		if above := c.byName[s.Owner.Schema]; above != nil {
			parent = d.byName[above.Table]
		}
		if !loose[s.Name] && !c.below(s, loose) {
			d.given[s.Table] = way{column: s.Owner.Column, to: parent}
		}
	}
	d.findOwners()
	d.findNeverNull()
	d.propose()
	d.nameSchemas()
	return d, nil
}

// depth is how many steps a schema's records are away from their account.
func (c *Catalog) depth(s *Schema) int {
	n := 1
	for ; s != nil && s.Owner.Schema != "" && n <= len(c.Schemas); n++ {
		s = c.byName[s.Owner.Schema]
	}
	return n
}

// below says whether a schema's records are owned through one of those schemas, and it is
// none of them.
func (c *Catalog) below(s *Schema, some map[string]bool) bool {
	if some[s.Name] {
		return false
	}
	for n := 0; s != nil && n <= len(c.Schemas); n++ {
		if some[s.Name] {
			return true
		}
		s = c.byName[s.Owner.Schema]
	}
	return false
}

// under are the errors at a path and below it.
func (f Faults) under(path string) (some Faults) {
	for _, one := range f {
		if rest, ok := strings.CutPrefix(one.Path, path); ok && (rest == "" || rest[0] == '.' || rest[0] == '[') && !one.Warning {
			some = append(some, one)
		}
	}
	return some
}

// gone makes comments of what the database does not have.
func (u *update) gone(s *sheet) error {
	s.file.Compare(u.tables)
	c, faults := s.file.catalog, s.file.Faults()
	loose := map[string]bool{}
	for _, one := range c.Schemas {
		loose[one.Name] = len(faults.under(join("schemas", one.Name, "owner"))) > 0
	}
	d, err := u.draft(c, loose)
	if err != nil {
		return err
	}
	accountKey, account := member(s.root, "account")
	for _, f := range faults.under("account") {
		key, _, _ := strings.Cut(strings.TrimPrefix(f.Path, "account."), ".")
		at, _ := member(account, key)
		if at == nil {
			at = accountKey
		}
		s.note(at.Line, "Correct this: "+f.Problem+".")
		u.say("%s: %s: correct it by hand", f.Path, f.Problem)
	}
	for _, part := range []string{"results", "events"} {
		if some := faults.under(part); len(some) > 0 {
			if err := s.drop(s.root, part, "Left out: "+some[0].Problem+"."); err != nil {
				return fmt.Errorf("%s %w", part, err)
			}
			u.say("%s is left out: %s", part, some[0].Problem)
		}
	}
	_, list := member(s.root, "schemas")
	for _, one := range c.Schemas {
		if err := u.goneOf(s, d, list, one, faults); err != nil {
			return fmt.Errorf("schemas.%s %w", one.Name, err)
		}
	}
	return u.goneRules(s, faults)
}

// goneOf does that for a schema.
func (u *update) goneOf(s *sheet, d *draft, list *yaml.Node, one *Schema, faults Faults) error {
	path := join("schemas", one.Name)
	some := faults.under(path)
	if len(some) == 0 {
		return nil
	}
	remove := func(why string) error {
		u.say("schema %s is left out: %s", one.Name, why)
		return s.drop(list, one.Name, "Left out: "+why+".")
	}
	t := d.byName[one.Table]
	if table := faults.under(join(path, "table")); len(table) > 0 || t == nil {
		return remove(some[0].Problem)
	}
	_, node := member(list, one.Name)
	if node == nil || node.Kind != yaml.MappingNode {
		return errForm
	}
	if key := faults.under(join(path, "key")); len(key) > 0 {
		key0 := draftKey(t)
		if len(key0) == 0 || unusable(t) != "" {
			return remove(key[0].Problem)
		}
		text := "key: [" + strings.Join(quotedNames(key0), ", ") + "]"
		u.say("schema %s: key is %s now: %s", one.Name, strings.Join(key0, ", "), key[0].Problem)
		return s.instead(node, "key", "table", text, "Replaced: "+key[0].Problem+".")
	}
	if owner := faults.under(join(path, "owner")); len(owner) > 0 {
		ways := d.owners[t.Name]
		if len(ways) == 0 {
			return remove(owner[0].Problem)
		}
		u.say("schema %s: the owner is by %s now: %s", one.Name, ways[0].column, owner[0].Problem)
		return s.instead(node, "owner", "table", "owner: "+d.ownerText(ways[0]), "Replaced: "+owner[0].Problem+". A guess, by "+cleanLine(ways[0].why)+":")
	}
	lost := func(i int) bool { return t.Column(one.Fields[i].Column) == nil }
	var names []string
	for i, field := range one.Fields {
		if lost(i) {
			names = append(names, field.Column)
		}
	}
	if len(names) == len(one.Fields) {
		return remove(fmt.Sprintf("table %s has none of its columns", t.Name))
	}
	if len(names) > 0 {
		u.say("schema %s: %s is left out: table %s has no such column", one.Name, strings.Join(names, ", "), t.Name)
		return s.dropFields(node, len(one.Fields), lost, fmt.Sprintf("Left out, since table %s has no such column: %s", t.Name, strings.Join(quotedNames(names), ", ")))
	}
	return nil
}

// drop makes a comment of a map's entry.
func (s *sheet) drop(parent *yaml.Node, name, why string) error {
	key, value := member(parent, name)
	if key == nil || isFlow(parent) || isBlank(s.line(key.Line)) || indentOf(s.line(key.Line)) != s.at(key)-s.start(key.Line) {
		return errForm
	}
	indent := indentOf(s.line(key.Line))
	s.commentOut(key.Line, s.lastLine(key.Line, indent, value), indent, why)
	return nil
}

// instead writes an entry of a schema anew and makes a comment of what was there.
// Without one it comes behind another entry.
func (s *sheet) instead(node *yaml.Node, name, behind, text, why string) error {
	key, value := member(node, name)
	switch {
	case isFlow(node):
		f, err := scanFlow(s.text, s.at(node))
		if err != nil || len(f.items) != len(node.Content)/2 {
			return errForm
		}
		if key == nil {
			s.note(node.Line, why)
			s.addItems(f, indentOf(s.line(node.Line))+2, []string{text})
			return nil
		}
		for i := range f.items {
			if item := f.items[i]; node.Content[2*i] == key {
				s.note(node.Line, why+" It was: "+string(s.text[item.from:item.until]))
				s.replace(item.from, item.until, strings.TrimSuffix(text, "\n"))
			}
		}
		return nil
	case key != nil:
		indent := indentOf(s.line(key.Line))
		if err := s.drop(node, name, why); err != nil {
			return err
		}
		s.insertAfter(s.lastLine(key.Line, indent, value), strings.Repeat(" ", indent)+text+"\n")
		return nil
	}
	key, value = member(node, behind)
	if key == nil {
		return errForm
	}
	indent := indentOf(s.line(key.Line))
	var b bytes.Buffer
	comment(&b, strings.Repeat(" ", indent), why)
	s.insertAfter(s.lastLine(key.Line, indent, value), b.String()+strings.Repeat(" ", indent)+text+"\n")
	return nil
}

// dropFields takes fields out of a schema, below a comment that names them.
func (s *sheet) dropFields(node *yaml.Node, n int, gone func(i int) bool, why string) error {
	key, value := member(node, "fields")
	step := 1
	if value != nil && value.Kind == yaml.MappingNode {
		step = 2
	}
	if key == nil || value.Kind == yaml.AliasNode || len(value.Content) != n*step {
		return errForm
	}
	s.note(key.Line, why)
	if isFlow(value) {
		f, err := scanFlow(s.text, s.at(value))
		if err != nil || len(f.items) != n {
			return errForm
		}
		s.removeItems(f, gone)
		return nil
	}
	for i := range n {
		if line := value.Content[i*step].Line; gone(i) {
			indent := indentOf(s.line(line))
			s.replace(s.start(line)+indent, s.start(line)+indent, "# ")
		}
	}
	return nil
}

// goneRules makes comments of rules whose schema or columns are gone.
func (u *update) goneRules(s *sheet, faults Faults) error {
	key, list := member(s.root, "derive")
	if list == nil || list.Kind != yaml.SequenceNode {
		return nil
	}
	left := len(list.Content)
	for i, item := range list.Content {
		some := faults.under(fmt.Sprintf("derive[%d]", i))
		if len(some) == 0 {
			continue
		}
		line := item.Line
		for line > key.Line && !strings.HasPrefix(strings.TrimLeft(s.line(line), " "), "-") {
			line--
		}
		if isFlow(list) || line == key.Line {
			return fmt.Errorf("derive %w", errForm)
		}
		indent := indentOf(s.line(line))
		s.commentOut(line, s.lastLine(line, indent, item), indent, "Left out: "+some[0].Problem+".")
		u.say("%s is left out: %s", some[0].Path, some[0].Problem)
		left--
	}
	if left == 0 && len(list.Content) > 0 {
		indent := s.start(key.Line)
		s.replace(indent, indent, "# ")
	}
	return nil
}

// verify compares what the text says with what the file said, but for what the notes
// name: an edit that went wrong is an error, and never a file.
func (u *update) verify() error {
	file := Read(u.text)
	if faults := file.Faults(); len(faults) > 0 {
		return fmt.Errorf("the file %w: %w", errForm, faults)
	}
	c := file.catalog
	kept := func(ok bool, what string) error {
		if ok {
			return nil
		}
		return fmt.Errorf("the file %w: %s would change", errForm, what)
	}
	dropped := func(start string) bool {
		return slices.ContainsFunc(u.notes, func(note string) bool { return strings.HasPrefix(note, start) })
	}
	faults := []error{
		kept(c.Account == u.want.Account, "account"),
		kept(c.Results == u.want.Results || dropped("results "), "results"),
		kept(c.Events == u.want.Events || dropped("events "), "events"),
		kept(c.ownHooks == u.want.ownHooks && len(c.hooks) == len(u.want.hooks), "hooks"),
		kept(len(c.derived) == len(u.want.derived) || dropped("derive["), "derive"),
	}
	for _, was := range u.want.Schemas {
		is := c.byName[was.Name]
		if is == nil {
			faults = append(faults, kept(dropped("schema "+was.Name+" is left out"), "schema "+was.Name))
			continue
		}
		faults = append(faults,
			kept(is.Table == was.Table, was.Name+".table"),
			kept(is.Owner == was.Owner || dropped("schema "+was.Name+": the owner"), was.Name+".owner"),
			kept(slices.Equal(is.Key, was.Key) || dropped("schema "+was.Name+": key"), was.Name+".key"),
			kept(u.sameFields(is, was), was.Name+".fields"))
	}
	return errors.Join(faults...)
}

// sameFields says whether the fields that the database has are there in their order,
// and behind them only new ones.
func (u *update) sameFields(is, was *Schema) bool {
	at := slices.IndexFunc(u.tables, func(t *Table) bool { return t.Name == was.Table })
	if at < 0 {
		return true
	}
	t := u.tables[at]
	stay := slices.DeleteFunc(slices.Clone(was.Fields), func(f Field) bool { return t.Column(f.Column) == nil })
	if len(is.Fields) < len(stay) || !slices.Equal(is.Fields[:len(stay)], stay) {
		return false
	}
	return !slices.ContainsFunc(is.Fields[len(stay):], func(f Field) bool {
		return f.Name != f.Column || slices.Contains(u.block.known[t.Name.String()], f.Column)
	})
}
