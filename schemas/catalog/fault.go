package catalog

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"walhook/schemas"
)

// Fault is one thing that is wrong with a catalog file, or with what it names in a
// database.
type Fault struct {
	Line   int `json:"line"`   // 1 is the first
	Column int `json:"column"` // in bytes; 1 is the first
	// Path is the place by the file's keys, such as schemas.dids.fields; "" for
	// the whole file.
	Path    string `json:"path"`
	Problem string `json:"problem"`
	// Fix is what to write instead; "" where the problem says it.
	Fix string `json:"fix,omitempty"`
	// Warning: walhook works with the file as it is.
	Warning bool `json:"-"`
	// Tolerated: walhook refuses a file with it, and works with a stored catalog that has it,
	// since an older walhook took it.
	Tolerated bool `json:"-"`
}

// String is line:column, path, problem and fix in one line.
func (f Fault) String() string { return fmt.Sprintf("%d:%d: %s", f.Line, f.Column, f.Text()) }

// Text is path, problem and fix in one line.
func (f Fault) Text() string {
	text := f.Problem
	if f.Path != "" {
		text = f.Path + ": " + text
	}
	if f.Fix != "" {
		text += "; " + f.Fix
	}
	return text
}

// Faults are all that is wrong with a file, in the order of the file.
type Faults []Fault

// Error lists every fault, a line each.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].String()
	}
	if len(lines) == 1 {
		return lines[0]
	}
	return fmt.Sprintf("%d errors:\n  %s", len(lines), strings.Join(lines, "\n  "))
}

// sorted puts faults into the order of the file, each once.
func (f Faults) sorted() Faults {
	slices.SortStableFunc(f, func(a, b Fault) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) })
	return slices.Compact(f)
}

// places joins the nodes of a file to their paths, both ways.
type places struct {
	paths map[*yaml.Node]string
	nodes map[string]*yaml.Node
}

// maxPathDepth bounds the paths of a file that nests without end. No key of the
// catalog is as deep.
const maxPathDepth = 20

func placesOf(document *yaml.Node) places {
	p := places{map[*yaml.Node]string{}, map[string]*yaml.Node{}}
	p.walk(document, "", 0)
	return p
}

func (p places) walk(node *yaml.Node, path string, depth int) {
	if depth > maxPathDepth {
		return
	}
	p.paths[node] = path
	if p.nodes[path] == nil {
		p.nodes[path] = node
	}
	switch node.Kind {
	case yaml.DocumentNode:
		for _, child := range node.Content {
			p.walk(child, path, depth)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			at := join(path, node.Content[i].Value)
			p.walk(node.Content[i], at, depth+1)
			p.walk(node.Content[i+1], at, depth+1)
		}
	case yaml.SequenceNode:
		for i, child := range node.Content {
			p.walk(child, fmt.Sprintf("%s[%d]", path, i), depth+1)
		}
	}
}

// join is the path of a key below another. A key that is no plain name is quoted.
func join(path string, keys ...string) string {
	for _, key := range keys {
		if !isSchemaName(key) || strings.Contains(key, ".") {
			key = fmt.Sprintf("%q", cut(key))
		}
		if path != "" {
			path += "."
		}
		path += key
	}
	return path
}

// at is a fault at a path, or at the nearest place above it that the file has.
func (p places) at(path, problem, fix string) Fault {
	f := Fault{Line: 1, Column: 1, Path: path, Problem: problem, Fix: fix}
	for near := path; ; near = near[:max(0, strings.LastIndexAny(near, ".["))] {
		if node := p.nodes[near]; node != nil && node.Line > 0 {
			f.Line, f.Column = node.Line, node.Column
			return f
		}
		if near == "" {
			return f
		}
	}
}

// cut shortens what a message quotes of a file.
func cut(text string) string {
	const most = 80
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// didYouMean names the nearest of the known names; "" where none is near.
func didYouMean(name string, known []string) string {
	if near := schemas.Nearest(name, known); near != "" {
		return "did you mean " + near + "?"
	}
	return ""
}

// orOneOf names the nearest of the known names, or all of them.
func orOneOf(name string, known []string) string {
	return cmp.Or(didYouMean(name, known), "want "+strings.Join(known, ", "))
}
