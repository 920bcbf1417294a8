package catalog

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"walhook/schemas"
)

// RowTable is one of the two tables whose rows are sent once, when they are inserted. Its
// text is the type under which such rows are counted.
type RowTable string

// The tables of rows.
const (
	ResultRows RowTable = "result" // [Catalog.Results]
	EventRows  RowTable = "event"  // [Catalog.Events]
)

// RowTables lists both.
func RowTables() []RowTable { return []RowTable{ResultRows, EventRows} }

// RowTable returns the name of a table of rows; the zero one where the catalog names none.
func (c *Catalog) RowTable(of RowTable) schemas.TableName {
	if of == ResultRows {
		return c.Results
	}
	return c.Events
}

// RowTable returns which table of rows the plan is of; "" for another table.
func (p *Plan) RowTable() RowTable {
	switch {
	case p.Results != nil:
		return ResultRows
	case p.Events != nil:
		return EventRows
	}
	return ""
}

// RowDigest identifies a row of a table of rows: by the primary key, and otherwise by all
// that the row holds; rows that hold the same have one digest. It returns false where the
// tuple does not carry that.
func (p *Plan) RowDigest(row schemas.Tuple) (digest [16]byte, ok bool) {
	r := p.Relation
	columns := slices.Clone(r.PrimaryKey)
	keyed := len(columns) > 0 && !r.KeyCut
	if !keyed {
		columns = columns[:0]
		for i := range r.Columns {
			columns = append(columns, i)
		}
	}
	// A partition may have them in another order.
	slices.SortFunc(columns, func(a, b int) int { return cmp.Compare(r.Columns[a].Name, r.Columns[b].Name) })
	h := sha256.New()
	write := func(text []byte) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(text)))
		h.Write(size[:])
		h.Write(text)
	}
	write([]byte(r.Table().String()))
	for _, i := range columns {
		if i >= len(row) || row[i].State == schemas.Absent {
			return digest, false
		}
		write([]byte(r.Columns[i].Name))
		if row[i].State == schemas.Null {
			h.Write([]byte{0})
			continue
		}
		text := row[i].Text
		if normal, comparable := r.Columns[i].Equality.Normal(text); keyed && comparable {
			text = normal
		}
		h.Write([]byte{1})
		write(text)
	}
	return [16]byte(h.Sum(nil)[:16]), true
}
