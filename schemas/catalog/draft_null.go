package catalog

import (
	"fmt"
	"slices"

	"walhook/schemas"
)

// chain is the way from a table to an account, column by column, as the draft or the file
// has it; nil for none.
func (d *draft) chain(t *Table) (chain []step) {
	for seen := []*Table{}; t != nil && t != d.account.table && !slices.Contains(seen, t); {
		w, ok := d.given[t.Name]
		if !ok {
			ways := d.owners[t.Name]
			if len(ways) == 0 {
				return nil
			}
			w = ways[0]
		}
		column := t.Column(w.column)
		if column == nil {
			return nil
		}
		chain, seen = append(chain, step{t, column}), append(seen, t)
		t = w.to
	}
	if t != d.account.table {
		return nil
	}
	return chain
}

// step is a column on the way from a table to an account.
type step struct {
	table  *Table
	column *TableColumn
}

func nullable(s step) bool { return !s.column.NotNull }

// findNeverNull adds longer ways to tables whose shortest way leads over a column that may
// be null: those on which no column may be null. A person decides.
func (d *draft) findNeverNull() {
	longer := map[schemas.TableName][]way{}
	for _, t := range d.usable {
		if len(d.owners[t.Name]) == 0 || !slices.ContainsFunc(d.chain(t), nullable) {
			continue
		}
		type found struct {
			way
			length int
		}
		var all []found
		for _, parent := range d.usable {
			if parent == t || parent == d.account.table || len(d.key(parent)) != 1 {
				continue
			}
			chain := d.chain(parent)
			if len(chain) == 0 || slices.ContainsFunc(chain, func(s step) bool { return nullable(s) || s.table == t }) {
				continue
			}
			for _, w := range d.waysTo(t, parent) {
				shown := func(other way) bool { return other.column == w.column && other.to == w.to }
				if t.Column(w.column).NotNull && !slices.ContainsFunc(d.owners[t.Name], shown) {
					w.neverNull = true
					all = append(all, found{w, len(chain)})
				}
			}
		}
		slices.SortStableFunc(all, func(a, b found) int { return a.length*1_000_000 + a.rank - b.length*1_000_000 - b.rank })
		for _, one := range all {
			longer[t.Name] = append(longer[t.Name], one.way)
		}
	}
	for name, ways := range longer {
		d.owners[name] = append(d.owners[name], ways...)
	}
}

// nullNote says which rows of a table belong to no account; "" for none.
func (d *draft) nullNote(t *Table) string {
	chain := d.chain(t)
	at := slices.IndexFunc(chain, nullable)
	switch {
	case at < 0:
		return ""
	case at == 0:
		return fmt.Sprintf("Rows whose %s is null belong to no account: nothing of them is sent.", chain[0].column.Name)
	}
	return fmt.Sprintf("Rows that lead to a row of %s whose %s is null belong to no account: nothing of them is sent.", chain[at].table.Name, chain[at].column.Name)
}
