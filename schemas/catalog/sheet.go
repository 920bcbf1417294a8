package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// sheet is the text of a catalog file that is edited in place: what an edit does not
// touch stays as a person wrote it, byte for byte. The nodes of the file say where.
type sheet struct {
	text  []byte
	root  *yaml.Node
	file  *File
	lines []int // where each line begins; the last entry is the end
	edits []edit
}

// edit replaces text[from:until].
type edit struct {
	from, until int
	insert      string
}

// errForm says that a file is written in a form that the update does not edit.
var errForm = errors.New("is written in a form that --update does not edit")

func newSheet(text []byte) (*sheet, error) {
	s := &sheet{text: text, file: Read(text)}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil || len(document.Content) == 0 {
		return nil, s.file.Faults()
	}
	s.root = resolve(document.Content[0])
	for at := 0; ; {
		s.lines = append(s.lines, at)
		n := bytes.IndexByte(text[at:], '\n')
		if n < 0 {
			break
		}
		at += n + 1
	}
	if last := s.lines[len(s.lines)-1]; last < len(text) {
		s.lines = append(s.lines, len(text))
	}
	return s, nil
}

// member is the key and the value of a map that the file itself writes there.
func member(node *yaml.Node, name string) (key, value *yaml.Node) {
	if node == nil || node.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == name && node.Content[i].Kind == yaml.ScalarNode {
			return node.Content[i], node.Content[i+1]
		}
	}
	return nil, nil
}

func isFlow(node *yaml.Node) bool { return node.Style&yaml.FlowStyle != 0 }

// line is a line with its end, counted from 1.
func (s *sheet) line(n int) string {
	if n < 1 || n >= len(s.lines) {
		return ""
	}
	return string(s.text[s.lines[n-1]:s.lines[n]])
}

// start is where a line begins; behind the last one the end of the text.
func (s *sheet) start(n int) int { return s.lines[min(n-1, len(s.lines)-1)] }

// at is where a node begins. Its column counts characters.
func (s *sheet) at(node *yaml.Node) int {
	at := s.start(node.Line)
	for n, line := 1, s.line(node.Line); n < node.Column && line != ""; n++ {
		size := len(string([]rune(line)[:1]))
		at, line = at+size, line[size:]
	}
	return at
}

func indentOf(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

func isBlank(line string) bool { return strings.TrimSpace(line) == "" }

func isComment(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "#") }

// lastLine is the last line of what begins at a line with an indentation: an entry of
// a map in block form, or an item of a list.
func (s *sheet) lastLine(first, indent int, value *yaml.Node) int {
	last := first
	for n := first + 1; n < len(s.lines); n++ {
		switch line := s.line(n); {
		case isBlank(line) || isComment(line):
		case indentOf(line) > indent || value != nil && value.Kind == yaml.SequenceNode && !isFlow(value) && indentOf(line) == indent && strings.HasPrefix(line[indent:], "-"):
			last = n
		default:
			return max(last, s.flowEnd(value))
		}
	}
	return max(last, s.flowEnd(value))
}

// flowEnd is the last line of the lists and maps of a node that stand in brackets.
func (s *sheet) flowEnd(node *yaml.Node) (last int) {
	if node == nil || node.Kind == yaml.AliasNode {
		return 0
	}
	if isFlow(node) && len(s.text) > s.at(node) {
		if f, err := scanFlow(s.text, s.at(node)); err == nil {
			return 1 + bytes.Count(s.text[:f.close], []byte("\n"))
		}
	}
	for _, child := range node.Content {
		last = max(last, s.flowEnd(child))
	}
	return last
}

func (s *sheet) replace(from, until int, insert string) {
	s.edits = append(s.edits, edit{from, until, insert})
}

// note writes a comment above a line, with the line's own indentation, unless it is
// among the comments there.
func (s *sheet) note(line int, text string) {
	var b bytes.Buffer
	comment(&b, s.line(line)[:indentOf(s.line(line))], text)
	first := line
	for isComment(s.line(first - 1)) {
		first--
	}
	if !bytes.Contains(s.text[s.start(first):s.start(line)], b.Bytes()) {
		s.replace(s.start(line), s.start(line), b.String())
	}
}

// commentOut turns lines into comments, below a comment that says why.
func (s *sheet) commentOut(first, last, indent int, why string) {
	s.note(first, why)
	var b strings.Builder
	for n := first; n <= last; n++ {
		line := s.line(n)
		shift := min(indent, indentOf(line))
		if isBlank(line) {
			b.WriteString(strings.Repeat(" ", indent) + "#\n")
			continue
		}
		b.WriteString(strings.Repeat(" ", indent) + "# " + line[shift:])
	}
	s.replace(s.start(first), s.start(last+1), b.String())
}

// insertAfter writes lines below a line.
func (s *sheet) insertAfter(line int, text string) {
	if end := s.start(line + 1); end > 0 && s.text[end-1] != '\n' {
		text = "\n" + strings.TrimSuffix(text, "\n")
	}
	s.replace(s.start(line+1), s.start(line+1), text)
}

// done is the text with its edits.
func (s *sheet) done() ([]byte, error) {
	slices.SortStableFunc(s.edits, func(a, b edit) int {
		if a.from != b.from {
			return a.from - b.from
		}
		return a.until - b.until
	})
	var out []byte
	at := 0
	for _, e := range s.edits {
		if e.from < at {
			return nil, fmt.Errorf("line %d %w", 1+bytes.Count(s.text[:e.from], []byte("\n")), errForm)
		}
		out = append(append(out, s.text[at:e.from]...), e.insert...)
		at = e.until
	}
	return append(out, s.text[at:]...), nil
}

// flow is a list or a map in brackets.
type flow struct {
	open, close int // the brackets
	items       []flowItem
}

// flowItem is an item, or a key with its value, and the comma behind it; -1 where
// there is none.
type flowItem struct{ from, until, comma int }

// scanFlow reads the list or map in brackets that begins at a place.
func scanFlow(text []byte, at int) (flow, error) {
	f := flow{open: at}
	if at >= len(text) || text[at] != '[' && text[at] != '{' {
		return f, errForm
	}
	depth, item := 0, flowItem{from: -1, comma: -1}
	end := func(comma int) {
		if item.from >= 0 {
			item.comma = comma
			f.items = append(f.items, item)
		}
		item = flowItem{from: -1, comma: -1}
	}
	fresh := true // a token begins here
	for i := at; i < len(text); i++ {
		c := text[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			fresh = true
			continue
		case c == '#' && fresh && depth > 0 && (text[i-1] == ' ' || text[i-1] == '\t' || text[i-1] == '\n'):
			n := bytes.IndexByte(text[i:], '\n')
			if n < 0 {
				return f, errForm
			}
			i += n - 1
			continue
		case c == ',' && depth == 1:
			end(i)
			fresh = true
			continue
		case c == '[' || c == '{':
			if depth++; depth == 1 {
				continue
			}
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				end(-1)
				f.close = i
				return f, nil
			}
		}
		if item.from < 0 {
			item.from = i
		}
		if (c == '"' || c == '\'') && fresh {
			n := quotedEnd(text[i:])
			if n < 0 {
				return f, errForm
			}
			i += n
		}
		item.until = i + 1
		fresh = c == '[' || c == '{' || c == ',' || c == ':'
	}
	return f, errForm
}

// quotedEnd is where a quoted text has its closing quote; -1 where it has none.
func quotedEnd(text []byte) int {
	quote := text[0]
	for i := 1; i < len(text); i++ {
		switch {
		case quote == '"' && text[i] == '\\':
			i++
		case text[i] == quote && quote == '\'' && i+1 < len(text) && text[i+1] == quote:
			i++
		case text[i] == quote:
			return i
		}
	}
	return -1
}

// removeItems takes items out of a list or map in brackets, each with a comma.
func (s *sheet) removeItems(f flow, gone func(i int) bool) {
	kept := len(f.items) - 1
	for kept >= 0 && gone(kept) {
		kept--
	}
	for i, item := range f.items {
		if !gone(i) {
			continue
		}
		if i < kept { // with the comma behind it, and the space that follows
			until := item.until
			if item.comma >= 0 {
				s.replace(item.comma, item.comma+1+spaces(s.text[item.comma+1:]), "")
			}
			s.replace(item.from, until, "")
			continue
		}
		from := item.from
		if i > 0 && f.items[i-1].comma >= 0 { // with the comma before it
			comma := f.items[i-1].comma
			if between := s.text[comma+1 : item.from]; isBlank(string(between)) {
				from = comma
			} else {
				s.replace(comma, comma+1, "")
			}
		}
		s.replace(from, item.until, "")
	}
}

func spaces(text []byte) int { return len(text) - len(bytes.TrimLeft(text, " ")) }

// addItems puts items behind the last one that stays.
func (s *sheet) addItems(f flow, indent int, items []string) {
	if len(items) == 0 {
		return
	}
	at, insert := f.open+1, ""
	if n := len(f.items); n > 0 {
		last := f.items[n-1]
		at, insert = last.until, ","
		if last.comma >= 0 {
			at, insert = last.comma+1, ""
		}
	}
	length := at - (1 + bytes.LastIndexByte(s.text[:at], '\n')) + len(insert)
	for i, item := range items {
		if i < len(items)-1 {
			item += ","
		}
		switch {
		case length+1+len(item) > width:
			insert += "\n" + strings.Repeat(" ", indent) + item
			length = indent + len(item)
		case len(f.items) == 0 && i == 0:
			insert, length = item, length+len(item)
		default:
			insert, length = insert+" "+item, length+1+len(item)
		}
	}
	s.replace(at, at, insert)
}
