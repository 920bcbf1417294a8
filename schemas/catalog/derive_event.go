package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// DerivedEvent is a change that matches a rule, before its body is rendered.
type DerivedEvent struct {
	Rule *Derivation
	Case string

	plan   *Plan
	fields []derivedFieldPlan
	rows   rows
	masked bool // for accounts other than its own
}

// Masked returns the event as accounts other than its own get it: without the
// confidential parts of that account's URLs.
func (e DerivedEvent) Masked() DerivedEvent {
	e.masked = true
	return e
}

type derivedFieldPlan struct {
	name    []byte      // "name": as JSON
	source  fieldSource // 0 for a count whose column does not exist
	column  int         // -1 when it does not exist; for fromAccount an index into Catalog.AccountColumns
	typ     uint32      // fromColumn, fromOld
	number  bool
	literal []byte // fromLiteral; for the others the default, nil for none
	watched []planField
	isURL   bool // it holds URLs of the account
}

func (c *Catalog) bindDerivedField(p *Plan, f derivedField) derivedFieldPlan {
	b := derivedFieldPlan{
		name:   append(pgjson.AppendString(nil, []byte(f.Name)), ':'),
		source: f.Source, column: -1, number: f.Number,
	}
	if f.HasDefault {
		b.literal = f.Default.AppendJSON(nil)
	}
	switch f.Source {
	case fromAccount:
		b.column = slices.Index(c.accountColumns, f.Column)
		b.isURL = c.isURLColumn(f.Column)
	case fromColumn, fromOld, fromCount:
		if f.Column == "" {
			break
		}
		b.isURL = p.Relation.Table() == c.Account.Table && c.isURLColumn(f.Column)
		if b.column = p.column(f.Column); b.column >= 0 {
			b.typ = p.Relation.Columns[b.column].Type
		} else if f.Source == fromCount {
			b.source = 0
		}
	case fromChanged:
		watched := f.Watched
		if len(watched) == 0 {
			watched = p.Schema.Fields
		}
		for _, w := range watched {
			if i := p.column(w.Column); i >= 0 {
				b.watched = append(b.watched, planField{name: pgjson.AppendString(nil, []byte(w.Name)), column: i})
			}
		}
	}
	return b
}

// Derive calls emit with an event for each rule that a change matches, in the order
// of the file. old is nil for an insert, new for a delete. Derive returns how many
// rules it cannot evaluate, because the replica identity keeps too little of the old
// row.
func (p *Plan) Derive(old, new schemas.Tuple, emit func(DerivedEvent)) (skipped int) {
	r := rows{kind: schemas.Update, old: old, new: new}
	switch {
	case old == nil:
		r.kind = schemas.Insert
	case new == nil:
		r.kind = schemas.Delete
	}
	for i := range p.derived {
		d := &p.derived[i]
		switch name, a := d.match(r); a {
		case yes:
			emit(DerivedEvent{Rule: d.rule, Case: name, plan: p, fields: d.fields, rows: r})
		case unknown:
			skipped++
		}
	}
	return skipped
}

// DerivedBody is a derived event's body. When Counts, Body[From:To] is the
// count.
type DerivedBody struct {
	Body     []byte
	Counts   bool
	From, To int
	Count    int64
}

// maxCount bounds the absolute value of one event's count, so that no day's sum
// overflows.
const maxCount = 1_000_000_000

var errCount = errors.New("count is not a whole number from -1000000000 to 1000000000")

// Render writes the body: a JSON object of the rule's fields, in their order. It
// leaves out a field whose column does not exist. account owns the record; columns
// are the account's, as in [schemas.Account.Columns], nil when they are not known.
func (e DerivedEvent) Render(account string, columns []string) (DerivedBody, error) {
	b := DerivedBody{Body: []byte{'{'}}
	for i := range e.fields {
		f := &e.fields[i]
		mark := len(b.Body)
		if mark > 1 {
			b.Body = append(b.Body, ',')
		}
		b.Body = append(b.Body, f.name...)
		from := len(b.Body)
		there, err := e.appendField(&b, f, account, columns)
		if err != nil {
			return DerivedBody{}, err
		}
		if !there {
			b.Body = b.Body[:mark]
		} else if f.source == fromCount {
			b.From, b.To = from, len(b.Body)
		}
	}
	b.Body = append(b.Body, '}')
	return b, nil
}

// GroupKey returns what the events of one daily sum have in common: all fields
// except the count and the account's columns.
func (e DerivedEvent) GroupKey(account string) ([]byte, error) {
	key := DerivedBody{Body: append(pgjson.AppendString(nil, []byte(e.Rule.Hook)), '{')}
	for i := range e.fields {
		f := &e.fields[i]
		if f.source == fromCount || f.source == fromAccount {
			continue
		}
		key.Body = append(key.Body, f.name...)
		if _, err := e.appendField(&key, f, account, nil); err != nil {
			return nil, err
		}
	}
	return key.Body, nil
}

func (e DerivedEvent) appendField(b *DerivedBody, f *derivedFieldPlan, account string, columns []string) (there bool, err error) {
	switch f.source {
	case 0:
		return false, nil
	case fromLiteral:
		b.Body = append(b.Body, f.literal...)
	case fromCase:
		b.Body = pgjson.AppendString(b.Body, []byte(e.Case))
	case fromOwner:
		b.Body = appendOwner(b.Body, account, f.number)
	case fromChanged:
		b.Body = e.appendChanged(b.Body, f)
	case fromAccount:
		text := ""
		if f.column < len(columns) {
			text = columns[f.column]
		}
		if (text == "" || text == "null") && f.literal != nil {
			text = string(f.literal)
		}
		if text == "" {
			text = "null"
		}
		from := len(b.Body)
		b.Body = append(b.Body, text...)
		if e.masked {
			b.Body = maskJSON(b.Body, from, f.isURL)
		}
	case fromCount:
		return e.appendCount(b, f)
	case fromOld:
		return e.appendColumn(b, f, e.rows.old)
	case fromColumn:
		return e.appendColumn(b, f, e.rows.last())
	}
	return true, nil
}

func (e DerivedEvent) appendColumn(b *DerivedBody, f *derivedFieldPlan, row schemas.Tuple) (there bool, err error) {
	var v schemas.Value
	if f.column >= 0 && f.column < len(row) {
		v = row[f.column]
	}
	switch {
	case v.State == schemas.Text:
		from := len(b.Body)
		b.Body, err = e.plan.Relation.Types.AppendJSON(b.Body, f.typ, v.Text)
		if err != nil {
			err = fmt.Errorf("column %s of table %s: %w", e.plan.Relation.Columns[f.column].Name, e.plan.Relation.Table(), err)
		} else if e.masked && e.plan.Account != nil {
			b.Body = maskJSON(b.Body, from, f.isURL)
		}
	case f.literal != nil:
		b.Body = append(b.Body, f.literal...)
	case v.State == schemas.Null:
		b.Body = append(b.Body, "null"...)
	default:
		return false, nil
	}
	return true, err
}

func (e DerivedEvent) appendCount(b *DerivedBody, f *derivedFieldPlan) (bool, error) {
	b.Counts, b.Count = true, 1
	if row := e.rows.last(); f.column >= 0 && f.column < len(row) {
		n, err := strconv.ParseInt(string(row[f.column].Text), 10, 64)
		if err != nil || n > maxCount || n < -maxCount {
			return false, fmt.Errorf("column %s of table %s: %w", e.plan.Relation.Columns[f.column].Name, e.plan.Relation.Table(), errCount)
		}
		b.Count = n
	}
	b.Body = strconv.AppendInt(b.Body, b.Count, 10)
	return true, nil
}

// appendChanged lists the names of the fields that an update changed; the list is
// empty for an insert or a delete.
func (e DerivedEvent) appendChanged(dst []byte, f *derivedFieldPlan) []byte {
	dst = append(dst, '[')
	first := true
	for _, w := range f.watched {
		if e.rows.kind != schemas.Update || e.rows.differs(w.column) != yes {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, w.name...)
	}
	return append(dst, ']')
}

// appendOwner writes an account's id: as a number if number is set and the id is a
// whole number.
func appendOwner(dst []byte, account string, number bool) []byte {
	if number && schemas.IsWholeNumber(account) {
		return append(dst, account...)
	}
	return pgjson.AppendString(dst, []byte(account))
}

// maxAccountColumnBytes bounds the JSON of one account column; a longer value is
// stored as null.
const maxAccountColumnBytes = 4096

// accountColumn returns the JSON of a column of the account's row; "" when the
// source did not send it.
func (p *Plan) accountColumn(row schemas.Tuple, i int) string {
	if !carries(row, i) {
		return ""
	}
	return AccountColumnJSON(p.Relation.Types, p.Relation.Columns[i].Type, row[i])
}

// AccountColumnJSON returns a value as the outbox stores it for an account. A value
// that has no JSON form, or a long one, becomes null.
func AccountColumnJSON(types *pgjson.Types, typ uint32, v schemas.Value) string {
	if v.State != schemas.Text {
		return "null"
	}
	text, err := types.AppendJSON(nil, typ, v.Text)
	if err != nil || len(text) > maxAccountColumnBytes || bytes.IndexByte(text, 0) >= 0 {
		return "null"
	}
	return string(text)
}
