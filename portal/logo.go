package portal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// MaxLogo bounds the file of a logo, in bytes.
const MaxLogo = 128 << 10

// Logo is a picture that the portal serves itself.
type Logo struct {
	content     []byte
	contentType string
	hash        string
}

// ReadLogo takes a picture: PNG, JPEG, WebP or SVG, which it knows by the content.
func ReadLogo(content []byte) (*Logo, error) {
	if len(content) > MaxLogo {
		return nil, fmt.Errorf("it has more than %d KB: make a smaller picture", MaxLogo>>10)
	}
	sum := sha256.Sum256(content)
	l := &Logo{content: content, hash: hex.EncodeToString(sum[:6]), contentType: http.DetectContentType(content)}
	switch l.contentType {
	case "image/png", "image/jpeg", "image/webp":
		return l, nil
	}
	if err := checkSVG(content); err != nil {
		return nil, err
	}
	l.contentType = "image/svg+xml"
	return l, nil
}

// checkSVG reads the whole text, so that a browser can show it. Scripts in it are not
// looked for: the policy that it is served with lets none run.
func checkSVG(content []byte) error {
	decoder := xml.NewDecoder(bytes.NewReader(content))
	root := ""
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) && root == "svg" {
			return nil
		}
		if err != nil && root == "svg" {
			return fmt.Errorf("the SVG is not well-formed: %w", err)
		}
		if err != nil || root != "" && root != "svg" {
			return errors.New("want a picture: PNG, JPEG, WebP or SVG")
		}
		if start, is := token.(xml.StartElement); is && root == "" {
			root = start.Name.Local
		}
	}
}

// logoPolicy lets a picture that somebody opens as a page do nothing: no script, no frame,
// no request. An SVG may have colours of its own.
const logoPolicy = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"

func (l *Logo) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", logoPolicy)
	h.Set("Content-Type", l.contentType)
	h.Set("Cache-Control", "public, max-age=86400")
	_, _ = w.Write(l.content) // an error means that the client is gone
}
