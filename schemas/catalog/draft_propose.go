package catalog

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"walhook/schemas"
)

// keyNames are columns that tell rows apart in tables that have no key.
var keyNames = []string{"id", "uuid", "guid", "uniqueid", "unique_id"}

// propose finds schemas for tables that the draft leaves out: whose rows may lead to
// an account, but by nothing that is sure enough to send an account the rows. The
// draft has them as comments.
func (d *draft) propose() {
	d.proposed = map[*Table]bool{}
	reached := []*Table{d.account.table}
	for _, t := range d.usable {
		if d.left[t.Name] == "" && t != d.account.table && len(d.key(t)) == 1 {
			reached = append(reached, t)
		}
	}
	for _, t := range d.byName {
		if d.left[t.Name] == "" || d.depth[t.Name] > 0 || t == d.account.table {
			continue
		}
		key := draftKey(t)
		if len(key) == 0 && t.Logged {
			if at := slices.IndexFunc(t.Columns, func(c TableColumn) bool {
				return slices.Contains(keyNames, strings.ToLower(c.Name)) && canName(&c)
			}); at >= 0 {
				key = []string{t.Columns[at].Name}
			}
		}
		if len(key) == 0 || len(draftKey(t)) > 0 && unusable(t) != "" {
			continue
		}
		ways := d.guesses(t, reached, key)
		if len(ways) == 0 {
			continue
		}
		d.proposed[t], d.owners[t.Name] = true, ways
		if len(draftKey(t)) == 0 {
			d.keys[t.Name] = key
		}
		d.left[t.Name] += proposedAbove
	}
}

func canName(c *TableColumn) bool { return !c.Unsent && c.Equality != schemas.EqualUnknown }

// guesses are the ways that may lead from a table to an account, the likeliest first.
func (d *draft) guesses(t *Table, reached []*Table, key []string) []way {
	id := d.account.table.Column(d.account.id)
	var ways []way
	for i, parent := range reached {
		for _, w := range d.waysTo(t, parent) { // of a table without a key
			w.rank += i
			ways = append(ways, w)
		}
	}
	for i := range t.Columns {
		c := &t.Columns[i]
		name := strings.ToLower(c.Name)
		if !canName(c) || t.foreignKeyOf(c.Name) != nil || typeClass(c.Type) != typeClass(id.Type) || slices.ContainsFunc(ways, func(w way) bool { return w.column == c.Name }) {
			continue
		}
		switch account := d.account.table; {
		case slices.ContainsFunc(namesOf(account.Name.Name, id.Name), func(n string) bool { return strings.HasSuffix(name, "_"+n) }):
			ways = append(ways, way{column: c.Name, to: account, why: fmt.Sprintf("its name, which ends like a reference to %s", account.Name), rank: i + 200_000})
		case isBareName(name, account.Name.Name):
			ways = append(ways, way{column: c.Name, to: account, why: fmt.Sprintf("its name, which is that of %s", account.Name), rank: i + 250_000})
		case soundsLikeAccount(name) && !slices.Contains(key, c.Name) && !d.refersElsewhere(c):
			ways = append(ways, way{column: c.Name, to: account, why: "its name and type, which an account's id could have", rank: i + 300_000})
		}
	}
	for i := range t.Columns {
		c := &t.Columns[i]
		for _, parent := range reached[1:] {
			other := parent.Column(d.key(parent)[0])
			switch {
			case !canName(c) || t.foreignKeyOf(c.Name) != nil || parent == t || typeClass(c.Type) != "text" || typeClass(other.Type) != "text":
			case isBareName(strings.ToLower(c.Name), parent.Name.Name):
				ways = append(ways, way{column: c.Name, to: parent, why: fmt.Sprintf("its name, which is that of %s", parent.Name), rank: i + 400_000})
			case len(key) == 1 && key[0] == c.Name && c.Name == other.Name && firstWord(t) == firstWord(parent) && d.isNextToAccount(parent):
				ways = append(ways, way{column: c.Name, to: parent, why: fmt.Sprintf("its key, if its rows have the %s of those of %s", c.Name, parent.Name), rank: i + 500_000})
			}
		}
	}
	slices.SortStableFunc(ways, func(a, b way) int { return a.rank - b.rank })
	return ways
}

func (d *draft) isNextToAccount(t *Table) bool {
	if depth, ok := d.depth[t.Name]; ok {
		return depth == 1
	}
	ways := d.owners[t.Name]
	return len(ways) > 0 && ways[0].to == d.account.table
}

// isBareName says whether a column is called as a table is: endpoint, of ps_endpoints.
func isBareName(column, table string) bool {
	table = strings.ToLower(table)
	stems := []string{singular(table)}
	if prefix, rest, ok := strings.Cut(table, "_"); ok && len(prefix) <= 3 && rest != "" {
		stems = append(stems, singular(rest))
	}
	return slices.Contains(stems, column)
}

func firstWord(t *Table) string {
	first, _, _ := strings.Cut(strings.ToLower(t.Name.Name), "_")
	return first
}

// soundsLikeAccount: user_id, iduser, customerid, tenant_uuid, accountcode.
func soundsLikeAccount(column string) bool {
	bare := strings.ReplaceAll(column, "_", "")
	for _, name := range append([]string{"owner"}, accountNames...) {
		for _, id := range []string{"id", "uuid", "code", "no"} {
			if bare == name+id || bare == id+name {
				return true
			}
		}
	}
	return false
}

// refersElsewhere says whether a column's name is that of a reference to a table that
// is not the account table.
func (d *draft) refersElsewhere(c *TableColumn) bool {
	for _, other := range d.usable {
		if key := draftKey(other); other != d.account.table && len(key) == 1 && refersByName(c, other, key[0]) {
			return true
		}
	}
	return false
}

// proposal is a schema as a comment.
func (d *draft) proposal(t *Table) string {
	var b, schema bytes.Buffer
	ways := d.owners[t.Name]
	comment(&b, "  ", fmt.Sprintf("Perhaps: the rows of %s may belong to accounts by %s, from %s. If they do, remove the first '# ' of each line.", t.Name, ways[0].column, ways[0].why))
	d.writeSchema(&schema, t)
	for line := range strings.Lines(schema.String()) {
		b.WriteString("  # " + line[2:])
	}
	return b.String()
}
