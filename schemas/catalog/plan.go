package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// Plan is the catalog bound to one relation: every name of the catalog is resolved
// to a column of the relation's shape.
type Plan struct {
	Relation *schemas.Relation
	// Schema is nil when rows of the table are not records.
	Schema *Schema
	// Account is set for the account table.
	Account *AccountPlan
	// Results is set for the table of async results.
	Results *ResultPlan
	// Events is set for the table of emitted events.
	Events *EventPlan
	// Missing lists the columns that the catalog names and the relation lacks. A
	// field of such a column is absent from data.
	Missing []string

	key     []int
	keyCut  bool  // the stream lacks a part of the key
	owner   int   // -1 when the column does not exist
	unnamed []int // columns that the catalog does not name; for the account table only
	fields  []planField
	derived []derivedPlan
}

type planField struct {
	name   []byte // "name": as JSON
	column int
	typ    uint32
	isURL  bool // a URL column of the account table
}

// AccountPlan holds the columns of the account table; -1 for those that the
// catalog does not name or the relation lacks.
type AccountPlan struct {
	id, url, parent, secret int
	columns                 []int // of Catalog.AccountColumns

	// LacksID, LacksURL and LacksParent say that the catalog names the column and the
	// relation lacks it, so that its value is not known.
	LacksID, LacksURL, LacksParent bool
}

// Bind binds the catalog to a relation. It returns nil when the catalog does not
// name the table.
func (c *Catalog) Bind(relation *schemas.Relation) *Plan {
	p := &Plan{Relation: relation, Schema: c.byTable[relation.Table()], owner: -1}
	if p.Schema != nil {
		p.bindSchema(c)
		c.bindDerived(p)
	}
	if relation.Table() == c.Account.Table {
		p.Account = &AccountPlan{
			id:     p.column(c.Account.ID),
			url:    p.column(c.Account.URL),
			parent: -1,
			secret: -1,
		}
		if c.Account.Parent != "" {
			p.Account.parent = p.column(c.Account.Parent)
		}
		if c.Account.Secret != "" {
			p.Account.secret = p.column(c.Account.Secret)
		}
		for _, name := range c.accountColumns {
			p.Account.columns = append(p.Account.columns, p.column(name))
		}
		p.Account.LacksID, p.Account.LacksURL = p.Account.id < 0, p.Account.url < 0
		p.Account.LacksParent = c.Account.Parent != "" && p.Account.parent < 0
		p.bindUnnamed()
	}
	if relation.Table() == c.Results {
		p.Results = bindResults(p)
	}
	if relation.Table() == c.Events {
		p.Events = bindEvents(p)
	}
	if p.Schema == nil && p.Account == nil && p.Results == nil && p.Events == nil {
		return nil
	}
	return p
}

func (p *Plan) bindSchema(c *Catalog) {
	p.bindKey(c.IsParent(p.Schema))
	p.owner = p.column(p.Schema.Owner.Column)
	for _, f := range p.Schema.Fields {
		if i := p.column(f.Column); i >= 0 {
			name := append(pgjson.AppendString(nil, []byte(f.Name)), ':')
			isURL := p.Relation.Table() == c.Account.Table && c.isURLColumn(f.Column)
			p.fields = append(p.fields, planField{name, i, p.Relation.Columns[i].Type, isURL})
		}
	}
}

// bindKey selects the columns that identify a record: the catalog's key, or else the
// primary key. If the replica identity is another index and its old rows lack the
// primary key, bindKey selects that index's columns. It does not when other records
// refer to this one, since these hold the primary key.
func (p *Plan) bindKey(parent bool) {
	r := p.Relation
	if len(p.Schema.Key) > 0 {
		for _, name := range p.Schema.Key {
			if i := p.column(name); i >= 0 {
				p.key = append(p.key, i)
			} else {
				p.keyCut = true
			}
		}
		return
	}
	p.key, p.keyCut = r.PrimaryKey, r.KeyCut
	if r.Identity != schemas.IdentityIndex || parent || !p.keyCut && len(p.key) > 0 && identityHolds(r, p.key) {
		return
	}
	p.key, p.keyCut = identityColumns(r), r.IdentityCut
}

// identityColumns are the columns of the replica identity.
func identityColumns(r *schemas.Relation) (columns []int) {
	for i := range r.Columns {
		if r.Columns[i].Key {
			columns = append(columns, i)
		}
	}
	return columns
}

// identityHolds reports whether old rows carry all of columns.
func identityHolds(r *schemas.Relation, columns []int) bool {
	return !slices.ContainsFunc(columns, func(i int) bool { return !r.Columns[i].Key })
}

// bindUnnamed collects the columns of the account table that the catalog does not
// name. One of them may be a renamed column of the catalog.
func (p *Plan) bindUnnamed() {
	named := map[int]bool{p.Account.id: true, p.Account.url: true, p.Account.parent: true, p.Account.secret: true, p.owner: true}
	for _, i := range slices.Concat(p.key, p.Account.columns) {
		named[i] = true
	}
	for _, f := range p.fields {
		named[f.column] = true
	}
	for i := range p.Relation.Columns {
		if !named[i] {
			p.unnamed = append(p.unnamed, i)
		}
	}
}

// UnnamedSame reports whether a change left every column unchanged that the catalog
// does not name. It returns false when the old row is not known.
func (p *Plan) UnnamedSame(c *schemas.Change) bool {
	if c.Old == nil || c.OldIsKey || c.New == nil {
		return false
	}
	for _, i := range p.unnamed {
		if c.Old[i].State != c.New[i].State || !bytes.Equal(c.Old[i].Text, c.New[i].Text) {
			return false
		}
	}
	return true
}

// column finds a column that the catalog names, or adds it to Missing.
func (p *Plan) column(name string) int {
	i := p.Relation.Column(name)
	if i < 0 {
		p.Missing = append(p.Missing, name)
	}
	return i
}

// Keyless reports whether the plan's records have no key at all: the table has no
// primary key, and neither catalog nor replica identity names a key.
func (p *Plan) Keyless() bool { return len(p.key) == 0 && !p.keyCut }

// OldRowHasKey reports whether the replica identity keeps the whole key, so that an
// old row identifies its record. It is true for records without a key.
func (p *Plan) OldRowHasKey() bool {
	return p.Keyless() || !p.keyCut && (p.Relation.Identity == schemas.IdentityFull || identityHolds(p.Relation, p.key))
}

// HasOwner reports whether the relation has the owner column.
func (p *Plan) HasOwner() bool { return p.owner >= 0 }

// Key returns the key of a record within its schema, as [schemas.KeyOf] builds it. It
// returns false when the tuple does not carry the whole key or the table has none.
func (p *Plan) Key(row schemas.Tuple) (string, bool) {
	if p.keyCut {
		return "", false // two records might have the same key
	}
	var few [4][]byte
	texts := few[:0]
	for _, i := range p.key {
		if i >= len(row) || row[i].State != schemas.Text {
			return "", false
		}
		text, ok := p.Relation.Columns[i].Equality.Normal(row[i].Text)
		if !ok {
			return "", false
		}
		texts = append(texts, text)
	}
	if len(texts) == 0 {
		return "", false
	}
	return schemas.KeyOf(texts), true
}

// KeyColumns lists the key's columns; it is empty when the table has no key or the
// stream lacks a part of it.
func (p *Plan) KeyColumns() []string {
	if p.keyCut {
		return nil
	}
	names := make([]string, len(p.key))
	for j, i := range p.key {
		names[j] = p.Relation.Columns[i].Name
	}
	return names
}

// KeyOnly returns row with its key columns only, as a replica identity that keeps
// nothing else would send it.
func (p *Plan) KeyOnly(row schemas.Tuple) schemas.Tuple {
	only := make(schemas.Tuple, len(row))
	for _, i := range p.key {
		only[i] = row[i]
	}
	return only
}

// OwnerKey returns the value of the owner column: an account's id, or the key of the
// parent record as [Plan.Key] returns it. It is "" when the column is null, and
// false when the row does not carry the column.
func (p *Plan) OwnerKey(row schemas.Tuple) (string, bool) {
	if p.owner < 0 || p.owner >= len(row) || row[p.owner].State == schemas.Absent {
		return "", false
	}
	text, ok := p.ownerText(row)
	if !ok {
		return "", false
	}
	if p.Schema.Owner.Schema != "" && row[p.owner].State == schemas.Text {
		return schemas.KeyOf([][]byte{text}), true
	}
	return validText(string(text)), true
}

// OwnerNull reports whether a row carries the owner column and it is null: the row belongs
// to no account and to no parent record.
func (p *Plan) OwnerNull(row schemas.Tuple) bool {
	return p.owner >= 0 && p.owner < len(row) && row[p.owner].State == schemas.Null
}

func (p *Plan) ownerText(row schemas.Tuple) (text []byte, ok bool) {
	if row[p.owner].State != schemas.Text {
		return nil, true
	}
	return p.Relation.OwnerIDs.NormalOf(p.Relation.Columns[p.owner].Equality, row[p.owner].Text)
}

// OwnerIncomparable reports whether a row's owner column cannot be compared with the
// column that it refers to: its value is not one of that column's type, or texts of
// that type do not show which values are equal.
func (p *Plan) OwnerIncomparable(row schemas.Tuple) bool {
	if p.owner < 0 || p.owner >= len(row) || row[p.owner].State != schemas.Text {
		return false
	}
	_, ok := p.ownerText(row)
	return !ok
}

// Tracked is [Catalog.InLedger] for the schema of a plan. The replica identity does not
// matter, since a table, or its next partition, may keep less later.
func (c *Catalog) Tracked(p *Plan) bool { return c.InLedger(p.Schema) }

func textOfColumn(row schemas.Tuple, i int) (string, bool) {
	if i < 0 || i >= len(row) || row[i].State != schemas.Text {
		return "", false
	}
	return validText(string(row[i].Text)), true
}

// validText makes names and addresses storable: a source whose encoding is SQL_ASCII
// sends any bytes.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// AccountRow is what a change says about an account. A column that the source did
// not send leaves the stored value as it is.
type AccountRow struct {
	schemas.Account
	HasURL, HasParent, HasSecret bool // whether the source sent the column
}

// AccountOf reads a row of the account table. ok is false when the row does not
// carry the id.
func (p *Plan) AccountOf(row schemas.Tuple) (account AccountRow, ok bool) {
	a := p.Account
	account.ID, ok = p.accountText(row, a.id)
	account.URL = p.unpadded(row, a.url)
	account.Parent, _ = p.accountText(row, a.parent)
	account.Secret = p.unpadded(row, a.secret)
	account.HasURL = carries(row, a.url)
	account.HasParent = carries(row, a.parent)
	account.HasSecret = carries(row, a.secret)
	for _, i := range a.columns {
		account.Columns = append(account.Columns, p.accountColumn(row, i))
	}
	return account, ok
}

// unpadded returns a text of a row without its type's padding; "" when the row has
// none.
func (p *Plan) unpadded(row schemas.Tuple, i int) string {
	text, ok := textOfColumn(row, i)
	if !ok {
		return ""
	}
	return string(p.Relation.Columns[i].Unpadded([]byte(text)))
}

// accountText returns the id of an account in its normal form.
func (p *Plan) accountText(row schemas.Tuple, i int) (string, bool) {
	if i < 0 || i >= len(row) || row[i].State != schemas.Text {
		return "", false
	}
	text, ok := p.Relation.AccountIDs.NormalOf(p.Relation.Columns[i].Equality, row[i].Text)
	return validText(string(text)), ok
}

func carries(row schemas.Tuple, i int) bool {
	return i >= 0 && i < len(row) && row[i].State != schemas.Absent
}

// AppendEnvelope appends the body of one record event: exactly the keys type,
// schema and data, data being a JSON string that holds a JSON object with the
// fields that row carries. scratch is reused between calls and returned.
// An error names the column whose value cannot be read. For a row of the account
// table, masked removes the confidential parts of its URLs.
func (p *Plan) AppendEnvelope(dst, scratch []byte, kind schemas.Kind, row schemas.Tuple, masked bool) (body, scratchOut []byte, err error) {
	scratch, err = p.appendData(scratch[:0], row, masked && p.Account != nil)
	if err != nil {
		return dst, scratch, err
	}
	dst = append(dst, `{"type":"`...)
	dst = append(dst, kind.String()...)
	dst = append(dst, `","schema":"`...)
	dst = append(dst, p.Schema.Name...)
	dst = append(dst, `","data":"`...)
	dst = pgjson.AppendEscaped(dst, scratch)
	return append(dst, `"}`...), scratch, nil
}

// Whole reports whether a row carries every field: not if the source left out a value that
// an update did not touch.
func (p *Plan) Whole(row schemas.Tuple) bool {
	for i := range p.fields {
		if at := p.fields[i].column; at < len(row) && row[at].State == schemas.Absent {
			return false
		}
	}
	return true
}

func (p *Plan) appendData(dst []byte, row schemas.Tuple, masked bool) ([]byte, error) {
	dst = append(dst, '{')
	first := true
	for i := range p.fields {
		f := &p.fields[i]
		if f.column >= len(row) || row[f.column].State == schemas.Absent {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, f.name...)
		if row[f.column].State == schemas.Null {
			dst = append(dst, "null"...)
			continue
		}
		var err error
		from := len(dst)
		dst, err = p.Relation.Types.AppendJSON(dst, f.typ, row[f.column].Text)
		if text := row[f.column].Text; errors.Is(err, pgjson.ErrAttributes) && utf8.Valid(text) {
			// The type was altered after the row was written, so no value can be
			// assigned to an attribute: write the text, as for an unknown type.
			dst, err = pgjson.AppendString(dst, text), nil
		}
		if err != nil {
			return dst, fmt.Errorf("column %s of table %s: %w", p.Relation.Columns[f.column].Name, p.Relation.Table(), err)
		}
		if masked {
			dst = maskJSON(dst, from, f.isURL)
		}
	}
	return append(dst, '}'), nil
}
