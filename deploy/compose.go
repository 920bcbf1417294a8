package deploy

import (
	"bytes"
	_ "embed"
	"text/template"
)

//go:embed docker/compose.yaml
var compose string

// Compose is an installation with Docker Compose: one service, beside walhook.yaml and the
// catalog file.
type Compose struct {
	Image       string
	UID, GID    int      // the owner of the files
	Catalog     string   // the catalog file; "" for none
	HostNetwork bool     // walhook.yaml names a database by a loopback address
	Sockets     []string // directories of sockets that walhook.yaml names
}

// File returns compose.yaml.
func (c Compose) File() ([]byte, error) {
	parsed, err := template.New("compose.yaml").Parse(compose)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = parsed.Execute(&out, c)
	return out.Bytes(), err
}
