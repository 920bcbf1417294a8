package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"walhook/schemas"
)

// ErrNoAccount says that no table of a database could be the table of accounts.
var ErrNoAccount = errors.New("no table looks like the table of accounts: name it with --account")

// ParseTable reads the name of a table as a catalog file has it.
func ParseTable(text string) (schemas.TableName, error) { return parseTableName(text) }

// Draft writes a catalog file for the tables of a database. account is the table of
// accounts; the zero name has it guessed. The same tables give the same bytes.
func Draft(tables []*Table, account schemas.TableName) ([]byte, error) {
	d := newDraft(tables)
	for _, t := range tables {
		d.use(t)
	}
	if err := d.chooseAccount(account); err != nil {
		return nil, err
	}
	d.findOwners()
	d.findNeverNull()
	d.propose()
	d.nameSchemas()
	var b bytes.Buffer
	d.writeAccount(&b)
	b.WriteString("\nschemas:\n")
	for _, t := range d.usable {
		if d.left[t.Name] == "" {
			d.writeSchema(&b, t)
		}
	}
	if len(d.names) == len(d.proposed) {
		b.Truncate(b.Len() - 1)
		b.WriteString(" {}\n")
	}
	for _, t := range tables {
		if d.proposed[t] {
			b.WriteString(d.proposal(t))
		}
	}
	b.WriteString("\n")
	b.WriteString(d.known().text(d.left))
	return b.Bytes(), nil
}

// draft is a catalog file in the making.
type draft struct {
	usable  []*Table // in order of name
	byName  map[schemas.TableName]*Table
	left    map[schemas.TableName]string   // tables that are left out, and why
	names   map[schemas.TableName]string   // of their schemas
	keys    map[schemas.TableName][]string // that a file names, instead of the tables' own
	parents map[schemas.TableName]bool     // the tables through which a file owns others
	given   map[schemas.TableName]way      // the owners of a file
	depth   map[schemas.TableName]int      // how far from the account the tables of a file are; 1 is next to it
	account candidate
	named   bool // the account table was named
	others  []candidate
	owners  map[schemas.TableName][]way // the shortest ways of each table, the best first
	// proposed are tables that are left out, and have a schema as a comment.
	proposed map[*Table]bool
}

func newDraft(tables []*Table) *draft {
	d := &draft{byName: map[schemas.TableName]*Table{}, left: map[schemas.TableName]string{}, names: map[schemas.TableName]string{}, keys: map[schemas.TableName][]string{}}
	for _, t := range tables {
		d.byName[t.Name] = t
	}
	return d
}

// use takes a table into the draft, or notes why it cannot be in it.
func (d *draft) use(t *Table) {
	if why := unusable(t); why == "" {
		d.usable = append(d.usable, t)
	} else if !t.Extension && t.Kind == "table" && t.PartitionOf == (schemas.TableName{}) {
		d.left[t.Name] = why
	}
}

// known is what the draft has read: the tables that have a schema in it.
func (d *draft) known() known {
	k := known{}
	for _, t := range d.usable {
		if d.left[t.Name] == "" {
			k[t.Name.String()] = t.columnNames()
		}
	}
	return k
}

// way is how a table's rows lead to an account: a column that refers to another
// table, or to the account table itself.
type way struct {
	column string
	to     *Table
	why    string
	rank   int // smaller is better
	// neverNull says that it is longer than the shortest one, and no column on it may be null.
	neverNull bool
}

// unusable is why no schema can be drafted for a table; "" where one can.
func unusable(t *Table) string {
	key := draftKey(t)
	switch {
	case t.Kind != "table" || t.PartitionOf != (schemas.TableName{}) || t.Extension:
		return "it is no table of its own"
	case !t.Logged:
		return "it is unlogged: its changes are not in the WAL"
	case len(key) == 0:
		return "it has neither a primary key nor a unique index without nulls"
	}
	for _, name := range key {
		switch column := t.Column(name); {
		case column.Unsent:
			return fmt.Sprintf("column %s of its key is generated, and the server does not send it", name)
		case column.Equality == schemas.EqualUnknown:
			return fmt.Sprintf("column %s of its key is of type %s, in which different texts are the same value", name, column.Type)
		case isSecret(t, column):
			return fmt.Sprintf("column %s of its key looks secret", name)
		}
	}
	return ""
}

// key is the key that a file names for a table, or the one that a draft takes.
func (d *draft) key(t *Table) []string {
	if key := d.keys[t.Name]; len(key) > 0 {
		return key
	}
	return draftKey(t)
}

// draftKey is the primary key, or the shortest unique one.
func draftKey(t *Table) []string {
	if len(t.Key) > 0 || len(t.Unique) == 0 {
		return t.Key
	}
	return t.Unique[0]
}

// findOwners finds each table's shortest ways to an account, nearest tables first.
func (d *draft) findOwners() {
	d.owners = map[schemas.TableName][]way{}
	at := map[schemas.TableName]bool{d.account.table.Name: true}
	deepest := 0
	for _, depth := range d.depth {
		deepest = max(deepest, depth)
	}
	frontier := []*Table{d.account.table}
	for level := 1; len(frontier) > 0 || level <= deepest; level++ {
		var next []*Table
		for _, t := range d.usable {
			if at[t.Name] {
				continue
			}
			if depth, ok := d.depth[t.Name]; ok {
				if depth == level {
					next = append(next, t)
				}
				continue
			}
			var ways []way
			for _, parent := range frontier {
				ways = append(ways, d.waysTo(t, parent)...)
			}
			if len(ways) > 0 {
				slices.SortStableFunc(ways, func(a, b way) int { return a.rank - b.rank })
				d.owners[t.Name] = ways
				next = append(next, t)
			}
		}
		for _, t := range next {
			at[t.Name] = true
		}
		// A key of several columns cannot be referred to by one.
		frontier = slices.DeleteFunc(next, func(t *Table) bool { return len(d.key(t)) != 1 })
	}
	for _, t := range d.usable {
		if _, fixed := d.depth[t.Name]; !at[t.Name] && !fixed {
			d.left[t.Name] = fmt.Sprintf("no foreign key of one column and no column's name leads from it to %s", d.account.table.Name)
		}
	}
}

// waysTo are the columns of t that refer to a parent: by a foreign key, or by name.
func (d *draft) waysTo(t, parent *Table) (ways []way) {
	target := d.account.id
	if parent != d.account.table {
		target = d.key(parent)[0]
	}
	for i := range t.Columns {
		column := &t.Columns[i]
		if column.Unsent || column.Equality == schemas.EqualUnknown {
			continue
		}
		rank := i
		if !column.NotNull {
			rank += 10_000
		}
		key := t.foreignKeyOf(column.Name)
		switch {
		case key != nil && key.Table == parent.Name && key.Refers[0] == target:
			ways = append(ways, way{column: column.Name, to: parent, why: "foreign key " + key.Name, rank: rank})
		case key == nil && refersByName(column, parent, target):
			ways = append(ways, way{column: column.Name, to: parent, why: "its name, no foreign key says so", rank: rank + 100_000})
		}
	}
	return ways
}

// refersByName says whether a column's name and type say that it holds another
// table's column.
func refersByName(column *TableColumn, parent *Table, target string) bool {
	other := parent.Column(target)
	if other == nil || typeClass(column.Type) != typeClass(other.Type) {
		return false
	}
	name := strings.ToLower(column.Name)
	return slices.Contains(namesOf(parent.Name.Name, target), name) || column.Type == "uuid" && isBareName(name, parent.Name.Name)
}

// namesOf are the names that columns have which refer to a column of a table.
func namesOf(table, column string) []string {
	table, column = strings.ToLower(table), strings.ToLower(column)
	var names []string
	if !slices.Contains(genericNames, column) {
		names = append(names, column)
	}
	stems := []string{table}
	if prefix, rest, ok := strings.Cut(table, "_"); ok && len(prefix) <= 3 && rest != "" {
		stems = append(stems, rest) // v_domains, cc_card
	}
	for _, stem := range stems {
		for _, s := range []string{stem, singular(stem)} {
			names = append(names, s+"_"+column, column+"_"+s, s+column)
		}
	}
	return names
}

var genericNames = []string{"id", "uuid", "guid", "key", "name", "code", "no", "nr", "number", "username", "email"}

func singular(word string) string {
	switch {
	case strings.HasSuffix(word, "ies") && len(word) > 4:
		return word[:len(word)-3] + "y"
	case strings.HasSuffix(word, "sses") || strings.HasSuffix(word, "xes") || strings.HasSuffix(word, "ches"):
		return word[:len(word)-2]
	case strings.HasSuffix(word, "s") && !strings.HasSuffix(word, "ss"):
		return word[:len(word)-1]
	}
	return word
}

// typeClass is what a type's values have in common with those of similar types.
func typeClass(name string) string {
	name, _, _ = strings.Cut(name, "(")
	switch name {
	case "smallint", "integer", "bigint", "numeric":
		return "number"
	case "text", "character varying", "character", "citext":
		return "text"
	}
	return name
}

// nameSchemas names the schemas after their tables, where a file has not named them.
func (d *draft) nameSchemas() {
	taken := map[string]bool{}
	for _, own := range append([]string{groupName}, ownNames...) {
		taken[strings.ToLower(own)] = true
	}
	for _, name := range d.names {
		taken[strings.ToLower(name)] = true
	}
	var unnamed []*Table
	count := map[string]int{}
	for _, t := range d.inOrder() {
		if d.names[t.Name] == "" {
			unnamed = append(unnamed, t)
			count[strings.ToLower(plainName(t.Name.Name))]++
		}
	}
	for _, t := range unnamed {
		name := plainName(t.Name.Name)
		if count[strings.ToLower(name)] > 1 {
			name = plainName(t.Name.Namespace + "_" + t.Name.Name)
		}
		base := name
		for n := 2; taken[strings.ToLower(name)]; n++ {
			name = fmt.Sprintf("%s_%d", base, n)
		}
		taken[strings.ToLower(name)] = true
		d.names[t.Name] = name
	}
}

// inOrder are the tables with a schema, in order of name, then those for which one is
// proposed.
func (d *draft) inOrder() []*Table {
	var tables, proposed []*Table
	for _, t := range d.usable {
		if d.left[t.Name] == "" {
			tables = append(tables, t)
		}
	}
	for t := range d.proposed {
		proposed = append(proposed, t)
	}
	slices.SortFunc(proposed, func(a, b *Table) int { return strings.Compare(a.Name.String(), b.Name.String()) })
	return append(tables, proposed...)
}

// plainName is a table's name with nothing in it that a schema's name may not have.
func plainName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '_'
	}, name)
}
