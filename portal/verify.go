package portal

import (
	"embed"
	"net/http"
)

// Each file is code that docs/RECEIVERS.md has, too, and that a test of package deliver
// runs against real deliveries.
//
//go:embed snippets
var snippetFiles embed.FS

// snippet is code that checks a signature.
type snippet struct{ ID, Language, Code string }

func readSnippets() ([]snippet, error) {
	list := []snippet{{ID: "sh", Language: "curl, OpenSSL"}, {ID: "go", Language: "Go"}, {ID: "js", Language: "Node.js"}, {ID: "python", Language: "Python"}, {ID: "php", Language: "PHP"}}
	for i := range list {
		code, err := snippetFiles.ReadFile("snippets/" + list[i].ID + ".txt")
		if err != nil {
			return nil, err
		}
		list[i].Code = string(code)
	}
	return list, nil
}

// verify shows how a receiver checks who sent a request.
func (p *Portal) verify(v *visit) {
	list, err := readSnippets()
	if err != nil {
		v.unreadable(err)
		return
	}
	v.show(http.StatusOK, "verify", list)
}
