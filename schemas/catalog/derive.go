package catalog

import (
	"slices"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// Derivation is a rule of the catalog: which changes of one schema's records
// are an event of their own, and what is told of it. A change yields at most
// one event of a rule.
type Derivation struct {
	// Hook is the event's name, which webhooks ask for. Several rules may share
	// it.
	Hook string
	// Groups are names by which a webhook asks for several hooks at once.
	Groups []string
	// Description is for account users.
	Description string
	// Format is the body's form where the webhook says nothing: json or form.
	Format string
	// Schema is the schema whose records are watched.
	Schema string
	// Where has to hold of the row in every case: the new one, or the one that
	// is gone.
	Where []Test
	// Cases are tried in this order; the first that holds is what happened.
	Cases []Case
	// Fields is what the body holds, in this order.
	Fields []DerivedField

	line int // of the catalog file
}

// Case is one way in which a rule's event can come about.
type Case struct {
	Name string
	// When holds alternatives: one of them has to hold.
	When []Condition
}

// Condition holds when all its parts do.
type Condition struct {
	// On is the kind of change; zero is any.
	On    schemas.Kind
	Tests []Test
}

// Test is something that is asked of a change's rows. Before an insert and
// after a delete there is no row, which counts as null.
type Test struct {
	Op TestOp
	// Columns is one column, but for OpChanged: any of these, or when there are
	// none any column that the schema publishes.
	Columns []string
	// Values are those that OpIs and OpBecomes ask for: one of them.
	Values []Literal
}

// TestOp says what a test asks.
type TestOp byte

// The tests. What is true are t, true, y, yes, on and every number but zero;
// what is set is neither null nor empty.
const (
	OpIs           TestOp = iota + 1 // the row has one of the values
	OpChanged                        // of an update: a value differs
	OpBecomesTrue                    // true after, and not before
	OpBecomesFalse                   // true before, and not after
	OpBecomesSet                     // set after, and not before
	OpBecomesUnset                   // set before, and not after
	OpBecomes                        // one of the values after, and none before
	OpRises                          // a number larger than before, null being 0
	OpFalls                          // a number smaller than before, null being 0
)

// LiteralKind is the type of a value in the catalog file.
type LiteralKind byte

// The kinds of literal.
const (
	LiteralNull LiteralKind = iota
	LiteralString
	LiteralNumber
	LiteralBool
)

// Literal is a value as the catalog file gives it.
type Literal struct {
	Kind LiteralKind
	Text string // true or false for LiteralBool
}

// AppendJSON appends the literal as JSON.
func (l Literal) AppendJSON(dst []byte) []byte {
	switch l.Kind {
	case LiteralString:
		return pgjson.AppendString(dst, []byte(l.Text))
	case LiteralNull:
		return append(dst, "null"...)
	}
	return append(dst, l.Text...)
}

// FieldSource says where a field of a derived event comes from.
type FieldSource byte

// The sources.
const (
	FromLiteral FieldSource = iota + 1 // Default
	FromColumn                         // the row's column: the new row's, or of a delete the old one's
	FromOld                            // the old row's column
	FromOwner                          // the account that the event is about
	FromAccount                        // a column of that account's row
	FromCase                           // the name of the case
	FromChanged                        // a list of the names of what an update changed
	FromCount                          // how many: 1, or a column; daily delivery adds them up
)

// DerivedField is one member of a derived event's body.
type DerivedField struct {
	Name   string
	Source FieldSource
	Column string // FromColumn, FromOld, FromAccount; FromCount: "" is 1
	// Number says of FromOwner that the id is written as a number.
	Number bool
	// Default stands for null where HasDefault; it is FromLiteral's value.
	Default    Literal
	HasDefault bool
	// Watched is FromChanged's names and their columns; empty is the schema's
	// fields.
	Watched []Field
}

// HasCount says whether the rule's events say how many they are about.
func (d *Derivation) HasCount() bool {
	return slices.ContainsFunc(d.Fields, func(f DerivedField) bool { return f.Source == FromCount })
}

// Derivations lists the rules, in the order of the file.
func (c *Catalog) Derivations() []*Derivation { return c.derived }

// DerivedHooks names the hooks of the rules and their groups, in order: what a
// webhook may ask for.
func (c *Catalog) DerivedHooks() []string {
	var names []string
	for _, d := range c.derived {
		names = append(append(names, d.Hook), d.Groups...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// AccountColumns names the columns of the account table that rules ask for, in
// order; none when no rule does.
func (c *Catalog) AccountColumns() []string { return c.accountColumns }

func accountColumnsOf(derived []*Derivation) []string {
	var columns []string
	for _, d := range derived {
		for _, f := range d.Fields {
			if f.Source == FromAccount {
				columns = append(columns, f.Column)
			}
		}
	}
	slices.Sort(columns)
	return slices.Compact(columns)
}
