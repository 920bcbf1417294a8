package catalog

import (
	"bytes"
	"math/big"
	"slices"
	"strings"

	"walhook/schemas"
)

// derivedPlan is a rule with its names resolved to columns of one relation.
type derivedPlan struct {
	rule   *Derivation
	where  []testPlan
	cases  []casePlan
	fields []derivedFieldPlan
}

type casePlan struct {
	name string
	when []conditionPlan
}

type conditionPlan struct {
	on    schemas.Kind
	tests []testPlan
}

type testPlan struct {
	op      testOp
	columns []int
	values  []literal
}

// bindDerived resolves the rules of the plan's schema. It lists a column that the
// relation lacks as missing; a test of that column never holds.
func (c *Catalog) bindDerived(p *Plan) {
	for _, d := range c.derived {
		if d.Schema != p.Schema.Name {
			continue
		}
		plan := derivedPlan{rule: d, where: p.bindTests(d.where)}
		for _, one := range d.cases {
			bound := casePlan{name: one.Name}
			for _, condition := range one.When {
				bound.when = append(bound.when, conditionPlan{condition.On, p.bindTests(condition.Tests)})
			}
			plan.cases = append(plan.cases, bound)
		}
		for _, f := range d.fields {
			plan.fields = append(plan.fields, c.bindDerivedField(p, f))
		}
		p.derived = append(p.derived, plan)
	}
}

func (p *Plan) bindTests(tests []ruleTest) []testPlan {
	var bound []testPlan
	for _, t := range tests {
		plan := testPlan{op: t.Op, values: t.Values}
		if t.Op == opChanged && len(t.Columns) == 0 {
			for _, f := range p.fields {
				plan.columns = append(plan.columns, f.column)
			}
		}
		for _, name := range t.Columns {
			if i := p.column(name); i >= 0 {
				plan.columns = append(plan.columns, i)
			}
		}
		bound = append(bound, plan)
	}
	return bound
}

// answer is the result of a test, in SQL's three-valued logic. It is unknown where
// the replica identity keeps too little of the old row.
type answer byte

const (
	no answer = iota
	unknown
	yes
)

// rows are a change as one account sees it. old is nil for an insert and new for a
// delete. The old row of an update may lack any column.
type rows struct {
	kind     schemas.Kind
	old, new schemas.Tuple
}

// last is the row that a rule's where and columns refer to.
func (r rows) last() schemas.Tuple {
	if r.kind == schemas.Delete {
		return r.old
	}
	return r.new
}

// match finds the first case that holds. The answer is unknown when the change does
// not carry what a case needs.
func (d *derivedPlan) match(r rows) (name string, a answer) {
	where := allHold(d.where, r)
	if where == no {
		return "", no
	}
	a = no
	for i := range d.cases {
		for j := range d.cases[i].when {
			c := &d.cases[i].when[j]
			if c.on != 0 && c.on != r.kind {
				continue
			}
			switch min(where, allHold(c.tests, r)) {
			case yes:
				return d.cases[i].name, yes
			case unknown:
				a = unknown
			}
		}
	}
	return "", a
}

func allHold(tests []testPlan, r rows) answer {
	a := yes
	for i := range tests {
		if a = min(a, tests[i].holds(r)); a == no {
			break
		}
	}
	return a
}

func (t *testPlan) holds(r rows) answer {
	if len(t.columns) == 0 {
		return no // none of the columns exists
	}
	i := t.columns[0]
	if r.kind == schemas.Update && t.op > opChanged && (i >= len(r.new) || r.new[i].State == schemas.Absent) {
		return no // unchanged: the source sends every changed value
	}
	switch t.op {
	case opIs:
		return ask(r.last(), i, t.isOne)
	case opChanged:
		return t.changed(r)
	case opBecomesTrue:
		return becomes(r, i, isTrue)
	case opBecomesFalse:
		return becomes(r.reversed(), i, isTrue)
	case opBecomesSet:
		return becomes(r, i, isSet)
	case opBecomesUnset:
		return becomes(r.reversed(), i, isSet)
	case opBecomes:
		if r.new == nil {
			return no
		}
		return becomes(r, i, t.isOne)
	case opRises:
		return rises(r, i)
	case opFalls:
		return rises(r.reversed(), i)
	}
	return no
}

// reversed returns the change that would undo r.
func (r rows) reversed() rows { return rows{r.kind, r.new, r.old} }

// ask evaluates a predicate on a column. Without a row the value is null.
func ask(row schemas.Tuple, i int, question func(schemas.Value) bool) answer {
	switch {
	case row == nil && question(schemas.Value{State: schemas.Null}):
		return yes
	case row == nil:
		return no
	case i >= len(row) || row[i].State == schemas.Absent:
		return unknown
	case question(row[i]):
		return yes
	}
	return no
}

func becomes(r rows, i int, question func(schemas.Value) bool) answer {
	after := ask(r.new, i, question)
	if after == no {
		return no
	}
	before := yes - ask(r.old, i, question)
	return min(before, after)
}

func (t *testPlan) changed(r rows) answer {
	if r.kind != schemas.Update {
		return no
	}
	a := no
	for _, i := range t.columns {
		a = max(a, r.differs(i))
	}
	return a
}

func (r rows) differs(i int) answer {
	switch {
	case i >= len(r.new) || r.new[i].State == schemas.Absent:
		return no // unchanged: the source sends every changed value
	case i >= len(r.old) || r.old[i].State == schemas.Absent:
		return unknown
	case r.new[i].State != r.old[i].State || !bytes.Equal(r.new[i].Text, r.old[i].Text):
		return yes
	}
	return no
}

func (t *testPlan) isOne(v schemas.Value) bool {
	return slices.ContainsFunc(t.values, func(l literal) bool { return l.is(v) })
}

// is compares a column's value with one of the catalog file.
func (l literal) is(v schemas.Value) bool {
	switch l.Kind {
	case literalNull:
		return v.State == schemas.Null
	case literalBool:
		return v.State == schemas.Text && isTrue(v) == (l.Text == "true")
	case literalNumber:
		a, ok := number(v)
		b, _ := new(big.Float).SetPrec(numberBits).SetString(l.Text)
		return ok && v.State == schemas.Text && a.Cmp(b) == 0
	}
	return v.State == schemas.Text && string(v.Text) == l.Text
}

func isSet(v schemas.Value) bool { return v.State == schemas.Text && len(v.Text) > 0 }

func isTrue(v schemas.Value) bool {
	if v.State != schemas.Text || len(v.Text) > 64 {
		return false
	}
	switch strings.ToLower(string(v.Text)) {
	case "t", "true", "y", "yes", "on":
		return true
	case "f":
		return false
	}
	n, ok := number(v)
	return ok && n.Sign() != 0
}

func rises(r rows, i int) answer {
	value := func(row schemas.Tuple) (*big.Float, answer) {
		switch {
		case row == nil:
			return new(big.Float), yes
		case i >= len(row) || row[i].State == schemas.Absent:
			return nil, unknown
		}
		n, ok := number(row[i])
		if !ok {
			return nil, no
		}
		return n, yes
	}
	before, knownBefore := value(r.old)
	after, knownAfter := value(r.new)
	if knownBefore != yes || knownAfter != yes {
		return min(knownBefore, knownAfter)
	}
	if after.Cmp(before) > 0 {
		return yes
	}
	return no
}

// numberBits is the precision of comparisons of numbers, about 77 decimal digits.
const numberBits = 256

// number reads a number; null is 0. ok is false for a text that is too long or not a
// number.
func number(v schemas.Value) (*big.Float, bool) {
	n := new(big.Float).SetPrec(numberBits)
	if v.State == schemas.Null {
		return n, true
	}
	if len(v.Text) > 400 || bytes.ContainsAny(v.Text, "xXpPbBoO_iI") {
		return nil, false
	}
	_, ok := n.SetString(string(v.Text))
	return n, ok
}
