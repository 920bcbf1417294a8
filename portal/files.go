package portal

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
)

//go:embed static
var staticFiles embed.FS

// file is one of the files that every page needs. It is packed once, at the start. Pages
// themselves are not packed: their length would tell whoever listens and can choose a part
// of the address something of what stands beside it (BREACH).
type file struct {
	content, packed []byte
	contentType     string
	hash            string // of the content; the addresses in pages end with it
}

// readFiles reads what pages ask for, by name.
func readFiles() (map[string]file, error) {
	files := map[string]file{}
	for name, contentType := range map[string]string{"app.css": "text/css; charset=utf-8", "app.js": "text/javascript; charset=utf-8", "htmx.min.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		content, err := staticFiles.ReadFile("static/" + name)
		if err != nil {
			return nil, fmt.Errorf("read the portal's files: %w", err)
		}
		var packed bytes.Buffer
		zip, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err == nil {
			_, err = zip.Write(content)
		}
		if err == nil {
			err = zip.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("pack the portal's file %s: %w", name, err)
		}
		sum := sha256.Sum256(content)
		files[name] = file{content, packed.Bytes(), contentType, hex.EncodeToString(sum[:6])}
	}
	return files, nil
}

// serveFile answers with one of the files. A browser keeps it: another content has another
// address.
func (p *Portal) serveFile(w http.ResponseWriter, r *http.Request) {
	f, known := p.pages.files[r.PathValue("file")]
	if !known {
		p.fail(w, r, nil, http.StatusNotFound, "error.nothing_here")
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", "public, max-age=86400")
	if r.URL.Query().Get("v") == f.hash {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("Vary", "Accept-Encoding")
	content := f.content
	if takesGzip(r.Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		content = f.packed
	}
	_, _ = w.Write(content) // an error means that the client is gone
}

// takesGzip reads an Accept-Encoding (RFC 9110, section 12.5.3). A weight of zero refuses.
func takesGzip(accepted string) bool {
	for part := range strings.SplitSeq(accepted, ",") {
		coding, weight, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			return !strings.HasPrefix(strings.ReplaceAll(weight, " ", ""), "q=0") || strings.ContainsAny(weight, "123456789")
		}
	}
	return false
}
