package catalog

import (
	"bytes"
	"slices"

	"walhook/schemas"
)

// Same reports whether two catalogs are equal in all that they say.
func (c *Catalog) Same(other *Catalog) bool { return bytes.Equal(c.YAML(), other.YAML()) }

// Difference is what a catalog that follows another one needs, before changes are routed
// by it.
type Difference struct {
	// Accounts says that the account table is read again: it is another one, or other
	// columns of it count.
	Accounts bool
	// Owners are the schemas whose keys and owners are read, in the order of their names.
	Owners []string
	// Moved are those of Owners with the same records as before, which may have other owners.
	Moved []string
	// Kept are the schemas whose stored owners stay. Those of all others are dropped.
	Kept []string
}

// Reads reports whether rows of the source are read. Without it the new catalog can take
// effect at once.
func (d Difference) Reads() bool { return d.Accounts || len(d.Owners) > 0 }

// DifferenceTo returns what next needs when it follows c.
func (c *Catalog) DifferenceTo(next *Catalog) Difference {
	d := Difference{
		Accounts: c.Account != next.Account || !slices.Equal(c.accountColumns, next.accountColumns),
	}
	for _, s := range next.Schemas {
		if !next.InLedger(s) {
			continue // nothing of it is stored
		}
		// An account id is compared by the type of the account table's column.
		if c.Account.Table == next.Account.Table && c.Account.ID == next.Account.ID && c.sameOwners(next, s, len(next.Schemas)) {
			d.Kept = append(d.Kept, s.Name)
		} else {
			d.Owners = append(d.Owners, s.Name)
			if was := c.Schema(s.Name); was != nil && was.Table == s.Table && slices.Equal(was.Key, s.Key) && c.InLedger(was) {
				d.Moved = append(d.Moved, s.Name)
			}
		}
	}
	return d
}

// sameOwners reports whether the owners of a schema of next are those that are stored by
// c: the same table, key and owner, and the same of all parents. depth bounds the chain.
func (c *Catalog) sameOwners(next *Catalog, s *Schema, depth int) bool {
	was := c.Schema(s.Name)
	switch {
	case was == nil || depth == 0:
		return false
	case was.Table != s.Table || !slices.Equal(was.Key, s.Key) || was.Owner != s.Owner:
		return false
	case !c.InLedger(was): // not stored
		return false
	case c.IsParent(was) != next.IsParent(s): // a parent's key may be another
		return false
	case s.Owner.Schema == "":
		return true
	}
	return c.sameOwners(next, next.Schema(s.Owner.Schema), depth-1)
}

// Continues reports whether the records of a schema of next are those of c: the same table,
// key and owner, and the same of all parents.
func (c *Catalog) Continues(next *Catalog, s *Schema) bool {
	for depth := len(next.Schemas); depth > 0; depth-- {
		was := c.Schema(s.Name)
		if was == nil || was.Table != s.Table || !slices.Equal(was.Key, s.Key) || was.Owner != s.Owner {
			return false
		}
		if s.Owner.Schema == "" {
			return c.Account.Table == next.Account.Table && c.Account.ID == next.Account.ID
		}
		s = next.Schema(s.Owner.Schema)
	}
	return false
}

// Depth is how many parents are between the records of a schema and their account.
func (c *Catalog) Depth(s *Schema) (depth int) {
	for ; s.Owner.Schema != "" && depth < len(c.Schemas); depth++ {
		s = c.Schema(s.Owner.Schema)
	}
	return depth
}

// NewTables are the tables that c names and former does not, in the order of their names.
func (c *Catalog) NewTables(former *Catalog) []schemas.TableName {
	return slices.DeleteFunc(c.Tables(), former.Names)
}
