package cdc

import (
	"fmt"
	"slices"
	"strings"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// entry is a schema's entry of a catalog file with the fields that the table
// has.
func entry(plan *catalog.Plan) string {
	s := plan.Schema
	var fields []string
	plain := true
	for _, f := range s.Fields {
		if plan.Relation.Column(f.Column) >= 0 {
			plain = plain && f.Name == f.Column
			fields = append(fields, quoteYAML(f.Name)+": "+quoteYAML(f.Column))
		}
	}
	list := "{" + strings.Join(fields, ", ") + "}"
	if plain {
		for i, text := range fields {
			fields[i], _, _ = strings.Cut(text, ": ")
		}
		list = "[" + strings.Join(fields, ", ") + "]"
	}
	owner := quoteYAML(s.Owner.Column)
	if s.Owner.Schema != "" {
		owner = fmt.Sprintf("{column: %s, schema: %s}", owner, quoteYAML(s.Owner.Schema))
	}
	key := ""
	if len(s.Key) > 0 {
		quoted := slices.Clone(s.Key)
		for i := range quoted {
			quoted[i] = quoteYAML(quoted[i])
		}
		key = "key: [" + strings.Join(quoted, ", ") + "], "
	}
	return fmt.Sprintf("schemas: {%s: {table: %s, %sowner: %s, fields: %s}}", quoteYAML(s.Name), quoteYAML(s.Table.String()), key, owner, list)
}

// quoteYAML writes a name as YAML takes it.
func quoteYAML(name string) string {
	if schemas.QuoteIdent(name) == name && !slices.Contains([]string{"y", "n", "yes", "no", "on", "off"}, name) {
		return name
	}
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_.") == "" && strings.Contains(name, ".") {
		return name // a table's qualified name
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}
