package catalog

import (
	"fmt"
	"slices"
	"strings"
)

// Change is one difference between two catalogs, in words for a DBA and for account
// users.
type Change struct {
	// Kind is "begins", "ends" or "changes".
	Kind string `json:"kind"`
	// What is the part of the catalog: "schema dids", "hook channel_create", "accounts".
	What string `json:"what"`
	// Details say what is different, one thing each.
	Details []string `json:"details"`
}

// ChangesTo lists what is different in next, for people.
func (c *Catalog) ChangesTo(next *Catalog) []Change {
	var list []Change
	add := func(kind, what string, details ...string) {
		list = append(list, Change{kind, what, append([]string{}, details...)})
	}
	if details := c.Account.detailsTo(next.Account); len(details) > 0 {
		add("changes", "accounts", details...)
	}
	for _, s := range next.Schemas {
		was := c.Schema(s.Name)
		if was == nil {
			add("begins", "schema "+s.Name, fmt.Sprintf("of table %s, %s; fields %s", s.Table, ownerText(s.Owner), fieldsText(s.Fields)))
		} else if details := was.detailsTo(s); len(details) > 0 {
			add("changes", "schema "+s.Name, details...)
		}
	}
	for _, s := range c.Schemas {
		if next.Schema(s.Name) == nil {
			add("ends", "schema "+s.Name, fmt.Sprintf("changes of table %s are no longer sent under this name", s.Table))
		}
	}
	former, names := c.HookNames(), next.HookNames()
	for _, name := range names {
		if !slices.Contains(former, name) {
			add("begins", "hook "+name)
		}
	}
	for _, name := range former {
		if !slices.Contains(names, name) {
			add("ends", "hook "+name, "webhooks that subscribe to it get nothing more from it")
		}
	}
	for _, one := range []struct {
		what     string
		was, now fmt.Stringer
		differs  bool
	}{
		{"results", c.Results, next.Results, c.Results != next.Results},
		{"events", c.Events, next.Events, c.Events != next.Events},
	} {
		if one.differs {
			was, now := tableText(one.was), tableText(one.now)
			switch {
			case was == "":
				add("begins", one.what, "rows of table "+now+" are sent")
			case now == "":
				add("ends", one.what, "rows of table "+was+" are no longer sent")
			default:
				add("changes", one.what, fmt.Sprintf("table %s, was %s", now, was))
			}
		}
	}
	if len(list) == 0 && !c.Same(next) {
		add("changes", "the rest", "texts, or the conditions, fields or formats of hooks and rules")
	}
	return list
}

// Summary writes changes in one line, at most so many of them.
func Summary(changes []Change, most int) string {
	var texts []string
	for _, c := range changes[:min(len(changes), most)] {
		text := c.What + " " + c.Kind
		if c.Kind == "changes" {
			text = c.What + ": " + strings.Join(c.Details, ", ")
		}
		texts = append(texts, text)
	}
	if more := len(changes) - most; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}

// tableText is a table's name; "" for none.
func tableText(name fmt.Stringer) string {
	text := name.String()
	if strings.Trim(text, `."`) == "" {
		return ""
	}
	return text
}

func (a AccountTable) detailsTo(next AccountTable) (details []string) {
	if a.Table != next.Table {
		details = append(details, fmt.Sprintf("table %s, was %s", next.Table, a.Table))
	}
	was, now := a.Brand, next.Brand
	for _, column := range []struct{ key, was, now string }{
		{"id", a.ID, next.ID}, {"url", a.URL, next.URL}, {"parent", a.Parent, next.Parent}, {"secret", a.Secret, next.Secret},
		{"brand.name", was.Name, now.Name}, {"brand.accent", was.Accent, now.Accent}, {"brand.support", was.Support, now.Support},
	} {
		switch {
		case column.was == column.now:
		case column.was == "":
			details = append(details, fmt.Sprintf("gains %s (column %s)", column.key, column.now))
		case column.now == "":
			details = append(details, fmt.Sprintf("loses %s (was column %s)", column.key, column.was))
		default:
			details = append(details, fmt.Sprintf("%s is column %s, was %s", column.key, column.now, column.was))
		}
	}
	return details
}

func (s *Schema) detailsTo(next *Schema) (details []string) {
	if s.Table != next.Table {
		details = append(details, fmt.Sprintf("table %s, was %s", next.Table, s.Table))
	}
	if !slices.Equal(s.Key, next.Key) {
		details = append(details, fmt.Sprintf("key %s, was %s", keyText(next.Key), keyText(s.Key)))
	}
	if s.Owner != next.Owner {
		details = append(details, fmt.Sprintf("%s, was %s", ownerText(next.Owner), ownerText(s.Owner)),
			"a record that has another account now goes over with its next change: delete to the former account, insert to the new one")
	}
	for _, f := range next.Fields {
		if was := s.field(f.Name); was == nil {
			details = append(details, "gains field "+f.Name)
		} else if was.Column != f.Column {
			details = append(details, fmt.Sprintf("field %s is column %s, was %s", f.Name, f.Column, was.Column))
		}
	}
	for _, f := range s.Fields {
		if next.field(f.Name) == nil {
			details = append(details, "loses field "+f.Name)
		}
	}
	switch {
	case next.NoLedger && !s.NoLedger:
		details = append(details, "leaves the ledger: deletes in a gap are missed")
	case s.NoLedger && !next.NoLedger:
		details = append(details, "enters the ledger")
	}
	if len(details) == 0 && !slices.Equal(s.Fields, next.Fields) {
		details = append(details, "fields come in another order: "+fieldsText(next.Fields))
	}
	return details
}

func (s *Schema) field(name string) *Field {
	if at := slices.IndexFunc(s.Fields, func(f Field) bool { return f.Name == name }); at >= 0 {
		return &s.Fields[at]
	}
	return nil
}

func fieldsText(fields []Field) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return strings.Join(names, ", ")
}

func keyText(key []string) string {
	if len(key) == 0 {
		return "the primary key"
	}
	return strings.Join(key, ", ")
}

func ownerText(o Owner) string {
	if o.Schema != "" {
		return fmt.Sprintf("owned through column %s by a record of %s", o.Column, o.Schema)
	}
	return "owned by the account in column " + o.Column
}
