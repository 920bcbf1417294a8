package catalog

import (
	"bytes"
)

// YAML is a catalog file that says the same: the one that the catalog was read
// from, with the built-in hooks where it has none of its own.
func (c *Catalog) YAML() []byte {
	out := bytes.TrimRight(c.source, "\n")
	out = append(out[:len(out):len(out)], '\n')
	if c.ownHooks {
		return out
	}
	out = append(out, "\nhooks:\n"...)
	for line := range bytes.Lines(hooksYAML) {
		if len(bytes.TrimSpace(line)) > 0 {
			out = append(out, "  "...)
		}
		out = append(out, line...)
	}
	return out
}
