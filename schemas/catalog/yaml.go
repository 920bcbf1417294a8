package catalog

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// yamlText is a text as a YAML value inside a list or a map in one line, in quotes
// where it would be read as something else.
func yamlText(text string) string {
	plain := text != ""
	for i, c := range []byte(text) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || i > 0 && (c >= '0' && c <= '9' || c == '.' || c == '-')) {
			plain = false
		}
	}
	if plain {
		var node yaml.Node
		// YAML 1.1 takes yes, no, on, off, y and n for booleans, and other programs do.
		switch strings.ToLower(text) {
		case "yes", "no", "on", "off", "y", "n":
		default:
			if err := yaml.Unmarshal([]byte(text), &node); err == nil && len(node.Content) == 1 && node.Content[0].Tag == "!!str" {
				return text
			}
		}
	}
	node := yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Style: yaml.DoubleQuotedStyle}
	out, err := yaml.Marshal(&node)
	if err != nil || strings.ContainsRune(strings.TrimSuffix(string(out), "\n"), '\n') {
		return "'" + strings.ReplaceAll(text, "'", "''") + "'"
	}
	return strings.TrimSuffix(string(out), "\n")
}
