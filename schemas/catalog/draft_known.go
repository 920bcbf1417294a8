package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"walhook/schemas"
)

// known is what a draft has read of a database: its tables by name, with their
// columns. The file keeps it in a comment. By it an update tells what is new from
// what a person has left out.
type known map[string][]string

// The comment has these lines of its own. A file may have text above and below.
const (
	knownBegin  = "# What the draft has read of the source: 'walhook catalog draft --update' tells by it what is new."
	knownAdvice = "# It writes these lines again: change nothing from here to the last one."
	knownLeft   = "# Left out:"
	knownTables = "# Tables and columns:"
	knownEnd    = "# End of what the draft has read."
)

// text is the comment, with the tables that are left out and the reasons.
func (k known) text(left map[schemas.TableName]string) string {
	var b bytes.Buffer
	b.WriteString(knownBegin + "\n" + knownAdvice + "\n")
	if len(left) > 0 {
		b.WriteString(knownLeft + "\n")
	}
	for _, name := range slices.SortedFunc(maps.Keys(left), func(x, y schemas.TableName) int { return strings.Compare(x.String(), y.String()) }) {
		hanging(&b, "# -", "#  ", fmt.Sprintf("%s: %s.", name, left[name]))
	}
	b.WriteString(knownTables + "\n")
	for _, table := range slices.Sorted(maps.Keys(k)) {
		listed(&b, "#   "+yamlText(table)+": [", "#     ", k[table])
	}
	b.WriteString(knownEnd + "\n")
	return b.String()
}

// listed writes a list of names, in lines of a bounded length.
func listed(b *bytes.Buffer, first, rest string, names []string) {
	line := first
	for i, name := range quotedNames(names) {
		if i < len(names)-1 {
			name += ","
		}
		switch {
		case i == 0:
			line += name
		case len(line)+1+len(name) > width:
			b.WriteString(line + "\n")
			line = rest + name
		default:
			line += " " + name
		}
	}
	b.WriteString(line + "]\n")
}

// block is the comment in a file.
type block struct {
	known   known
	left    []string // the entries about tables that were left out
	foreign string   // the lines in it that no draft writes
	// from and until are its bytes, without the last line's end; a file without it has 0.
	from, until int
}

// wasProposed says whether the last draft has left a table out and proposed a schema.
func (b block) wasProposed(t *Table) bool {
	return slices.ContainsFunc(b.left, func(entry string) bool {
		return strings.HasPrefix(entry, "# - "+cleanLine(t.Name.String())+":") && strings.HasSuffix(entry, proposedAbove+".")
	})
}

// proposedAbove ends the reason of a table that has a schema as a comment.
const proposedAbove = "; a comment above proposes a schema"

// knownBlock finds the comment in a file.
func knownBlock(text []byte) (b block, err error) {
	if b.from = lineAt(text, knownBegin); b.from < 0 {
		return block{}, nil
	}
	size := lineAt(text[b.from:], knownEnd)
	if size < 0 {
		return block{}, fmt.Errorf("the comment that begins with %q has lost its last line, %q: write it again, or remove the whole comment", knownBegin, knownEnd)
	}
	b.until = b.from + size + len(knownEnd)
	var listing strings.Builder
	tables := false
	for line := range strings.Lines(string(text[b.from:b.until])) {
		bare := strings.TrimRight(line, "\r\n")
		switch {
		case bare == knownBegin || bare == knownAdvice || bare == knownLeft || bare == knownEnd:
		case bare == knownTables:
			tables = true
		case tables && strings.HasPrefix(bare, "#   "):
			listing.WriteString(bare[len("# "):] + "\n")
		case !tables && strings.HasPrefix(bare, "# - "):
			b.left = append(b.left, bare)
		case !tables && strings.HasPrefix(bare, "#   ") && len(b.left) > 0:
			b.left[len(b.left)-1] += bare[len("#  "):]
		case bare != "":
			b.foreign += line
		}
	}
	if err := yaml.Unmarshal([]byte(listing.String()), &b.known); err != nil || !tables {
		return block{}, errors.New("the comment below \"" + knownTables + "\" cannot be read: undo what was changed in it, or remove the whole comment, from " +
			"\"What the draft has read\" to \"End of what the draft has read\"")
	}
	if b.known == nil {
		b.known = known{}
	}
	return b, nil
}

// lineAt is where a text has a line; -1 where it has none.
func lineAt(text []byte, line string) int {
	for at := 0; ; {
		n := bytes.Index(text[at:], []byte(line))
		if n < 0 {
			return -1
		}
		at += n
		end := at + len(line)
		if (at == 0 || text[at-1] == '\n') && (end == len(text) || text[end] == '\n' || text[end] == '\r') {
			return at
		}
		at = end
	}
}
