package cdc

import (
	"context"
	"slices"
	"strings"

	"walhook/doctor"
	"walhook/schemas/catalog"
)

// lookAtShape compares the columns of one table with those that the catalog
// names.
func (e *examination) lookAtShape(ctx context.Context, t tableState) {
	relation, err := readRelation(ctx, e.s, e.cfg.Publication, t.name)
	if err != nil || relation == nil { // gone since
		if err != nil {
			e.s.Unseen(e.r, err, checkColumns)
		}
		return
	}
	plan := e.cfg.Catalog.Bind(relation)
	if plan == nil {
		return
	}
	if e.unsent, err = unsentColumns(ctx, e.s, t.oid, relation); err != nil {
		e.s.Unseen(e.r, err, checkColumns)
		return
	}
	told := e.accountColumns(plan)
	told = append(told, e.resultColumns(plan)...)
	if plan.Schema != nil {
		told = append(told, e.ownerColumn(plan)...)
		told = append(told, e.keys(t, plan)...)
		told = append(told, e.fields(plan, told)...)
	}
	e.ruleColumns(plan, told)
}

// keys tells of a schema whose records cannot be told apart.
func (e *examination) keys(t tableState, plan *catalog.Plan) (missing []string) {
	if n := len(plan.KeyColumns()); n > 0 && n >= len(plan.Schema.Key) {
		return nil
	}
	for _, column := range plan.Schema.Key {
		if plan.Relation.Column(column) < 0 {
			missing = append(missing, column)
		}
	}
	if len(missing) > 0 {
		e.r.Fail(checkKeys, e.renamed(plan.Relation, missing, func(string) string { return entry(plan) }, doctor.Steps{{Kind: doctor.Catalog, Text: entry(plan),
			Note: "with the key's columns, in a file for --catalog"}, setupAgain()}),
			"table %s has no column %s of the key of %s: %s", t.name, strings.Join(missing, ", "), plan.Schema.Name, undistinguished)
		return missing
	}
	if t.key != nil {
		e.r.Fail(checkKeys, t.key.steps, "%s", t.key.problem)
		return t.key.unsent
	}
	return nil
}

// fields tells of fields that are absent from every event, besides those that
// were told of already.
func (e *examination) fields(plan *catalog.Plan, told []string) (missing []string) {
	for _, field := range plan.Schema.Fields {
		if plan.Relation.Column(field.Column) < 0 && !slices.Contains(told, field.Column) {
			missing = append(missing, field.Column)
		}
	}
	if len(missing) > 0 {
		e.r.Warn(checkFields, doctor.Steps{{Kind: doctor.Catalog, Text: entry(plan),
			Note: "in a file for --catalog: the fields are left out; or map them, as field: column"}},
			"table %s has no column %s: absent from every %s", plan.Relation.Table(), strings.Join(missing, ", "), plan.Schema.Name)
	}
	return missing
}

// ruleColumns tells of columns that only the rules of the catalog ask for.
func (e *examination) ruleColumns(plan *catalog.Plan, told []string) {
	var missing []string
	for _, column := range plan.Missing {
		if !slices.Contains(told, column) && !slices.Contains(missing, column) {
			missing = append(missing, column)
		}
	}
	if len(missing) > 0 {
		e.r.Warn(checkFields, e.renamed(plan.Relation, missing, func(string) string { return "derive: …" }, doctor.Steps{{Kind: doctor.Catalog, Text: "derive: …",
			Note: "name the column as it is, or take out the rules that ask for it"}}),
			"table %s has no column %s, which rules under derive ask for", plan.Relation.Table(), strings.Join(missing, ", "))
	}
}
