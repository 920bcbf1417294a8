package catalog

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// manyRows is from when on a table that only grows is worth a note.
const manyRows = 1_000_000

// width is about how long a line of a draft is.
const width = 110

// comment writes a comment, in lines of a bounded length. What it quotes of the
// database is kept to one line.
func comment(b *bytes.Buffer, indent, text string) { hanging(b, indent+"#", indent+"#", text) }

// hanging writes a comment whose lines begin with first and then with rest.
func hanging(b *bytes.Buffer, first, rest, text string) {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if unicode.IsControl(r) || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	line, empty := first, true
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width && !empty {
			b.WriteString(line + "\n")
			line = rest
		}
		empty = false
		line += " " + word
	}
	b.WriteString(line + "\n")
}

func (d *draft) writeAccount(b *bytes.Buffer) {
	a := d.account
	comment(b, "", "A catalog file of walhook (docs/CATALOG.md), drafted from the tables of a database. Read it, correct it, and keep it with your other configuration: "+
		"'walhook catalog check' says whether it is right.")
	b.WriteString("account:\n")
	if d.named {
		comment(b, "  ", "The table of accounts, as --account named it.")
	} else {
		comment(b, "  ", "A guess: "+strings.Join(a.reasons, "; ")+". --account names another one.")
	}
	for _, other := range d.others {
		comment(b, "  ", fmt.Sprintf("It may be %s: %s.", other.table.Name, strings.Join(other.reasons, "; ")))
	}
	fmt.Fprintf(b, "  table: %s\n  id: %s\n", yamlText(a.table.Name.String()), yamlText(a.id))
	url := urlColumn(a.table)
	if url == "" {
		url = wantedURL
		comment(b, "  ", fmt.Sprintf("The table has no column that looks like a webhook URL. Name the one that it has, or add one: ALTER TABLE %s ADD COLUMN %s text", a.table.Name, wantedURL))
	}
	fmt.Fprintf(b, "  url: %s\n", yamlText(url))
	if parent := parentColumn(a.table, a.id); parent != "" {
		fmt.Fprintf(b, "  parent: %s\n", yamlText(parent))
	}
}

func (d *draft) writeSchema(b *bytes.Buffer, t *Table) {
	if t.Comment != "" {
		comment(b, "  ", t.Comment)
	}
	grows := t.Rows >= manyRows && t.InsertOnly
	switch {
	case grows && d.isParent(t):
		comment(b, "  ", "By the server's statistics a large table that only grows: leave it out unless somebody needs each row as an event.")
	case grows:
		comment(b, "  ", "By the server's statistics a large table that only grows: leave it out unless somebody needs each row as an event. With ledger: false the outbox does not remember each of "+
			"its rows, and a delete in a gap is missed.")
	case looksLikeLog(t):
		comment(b, "  ", "By its name a record of what happened: leave it out unless somebody needs each row as an event. If it is large and only grows, write ledger: false.")
	}
	fmt.Fprintf(b, "  %s:\n    table: %s\n", yamlText(d.names[t.Name]), yamlText(t.Name.String()))
	key := d.key(t)
	if len(t.Key) == 0 {
		if len(t.Unique) > 0 {
			comment(b, "    ", "The table has no primary key; this is a unique index of it.")
		} else {
			comment(b, "    ", "The table has no key: this has to be different in each row, and a unique index should see to that.")
		}
		fmt.Fprintf(b, "    key: [%s]\n", strings.Join(quotedNames(key), ", "))
	}
	d.writeOwner(b, t)
	var fields, secret, unsent []string
	for i := range t.Columns {
		switch c := &t.Columns[i]; {
		case c.Unsent:
			unsent = append(unsent, c.Name)
		case !slices.Contains(key, c.Name) && !d.isOwnerColumn(t, c.Name) && isSecret(t, c):
			secret = append(secret, c.Name)
		default:
			fields = append(fields, c.Name)
		}
	}
	if len(secret) > 0 {
		comment(b, "    ", "Left out, since they look secret: "+strings.Join(secret, ", "))
	}
	if len(unsent) > 0 {
		comment(b, "    ", "Left out, since the server does not send generated columns: "+strings.Join(unsent, ", "))
	}
	listed(b, "    fields: [", "      ", fields)
	if grows && !d.isParent(t) {
		b.WriteString("    ledger: false\n")
	}
}

// isParent says whether the draft owns records through those of a table.
func (d *draft) isParent(t *Table) bool {
	for _, ways := range d.owners {
		if len(ways) > 0 && ways[0].to == t {
			return true
		}
	}
	return d.parents[t.Name]
}

// looksLikeLog: a table of calls, or of what people and programs did.
func looksLikeLog(t *Table) bool {
	return slices.ContainsFunc(nameWords(t.Name.Name), func(w string) bool {
		return slices.Contains([]string{"cdr", "cdrs", "acc", "call", "calls", "log", "logs", "history", "audit", "journal", "trace"}, w) || strings.HasPrefix(w, "log") && len(w) > 5
	})
}

func (d *draft) isOwnerColumn(t *Table, column string) bool {
	ways := d.owners[t.Name]
	return len(ways) > 0 && ways[0].column == column
}

func (d *draft) writeOwner(b *bytes.Buffer, t *Table) {
	if t == d.account.table {
		fmt.Fprintf(b, "    owner: %s\n", yamlText(d.account.id))
		return
	}
	ways := d.owners[t.Name]
	if !strings.HasPrefix(ways[0].why, "foreign key") {
		comment(b, "    ", "By "+ways[0].why+".")
	}
	if note := d.nullNote(t); note != "" {
		comment(b, "    ", note)
	}
	fmt.Fprintf(b, "    owner: %s\n", d.ownerText(ways[0]))
	for _, other := range ways[1:] {
		never := ""
		if other.neverNull {
			never = "longer and never null, "
		}
		fmt.Fprintf(b, "    # or, %sby %s:\n    # owner: %s\n", never, cleanLine(other.why), d.ownerText(other))
	}
}

func (d *draft) ownerText(w way) string {
	if w.to == d.account.table {
		return yamlText(w.column)
	}
	return fmt.Sprintf("{column: %s, schema: %s}", yamlText(w.column), yamlText(d.names[w.to.Name]))
}

// cleanLine keeps what a comment quotes of the database in its line.
func cleanLine(text string) string {
	var b bytes.Buffer
	comment(&b, "", text)
	return strings.ReplaceAll(strings.TrimSpace(strings.TrimPrefix(b.String(), "#")), "\n#", "")
}
