package portal

import (
	"net/http"
	"strings"
)

// look is a brand as the layout of a page shows it: texts, and addresses below the portal.
type look struct {
	Name           string
	Support        string // "" for none
	Theme          string // a stylesheet; "" for walhook's colours
	Icon           string // of the browser's tab; "" for walhook's
	Logo, LogoDark string // "" for none
	Mark           string // the first letter of a name without a logo; "" for walhook's mark
}

// lookOf makes a look of a brand.
func (p *Portal) lookOf(b Brand) look {
	l := look{Name: b.Name, Support: b.Support}
	if l.Name == "" {
		l.Name = p.pages.text("brand")
	} else {
		l.Mark = strings.ToUpper(string([]rune(b.Name)[:1]))
	}
	if b.Accent.set {
		colours := strings.ReplaceAll(strings.ReplaceAll(b.Accent.String(), "#", ""), ",", "-")
		l.Theme, l.Icon = p.base+"theme/"+colours+".css", p.base+"theme/"+colours+".svg"
	}
	if b.Logo != nil {
		l.Logo, l.Icon = p.base+"logo?v="+b.Logo.hash, p.base+"logo?v="+b.Logo.hash
	}
	if b.LogoDark != nil {
		l.LogoDark = p.base + "logo/dark?v=" + b.LogoDark.hash
	}
	return l
}

// registerLook registers what a look asks for. None of it depends on a session: a theme is
// computed from its address alone, and the logo is the configuration's.
func (p *Portal) registerLook(mux *http.ServeMux) {
	mux.HandleFunc("GET "+Prefix+"theme/{file}", p.theme)
	if p.cfg.Brand.Logo != nil {
		mux.Handle("GET "+Prefix+"logo", p.cfg.Brand.Logo)
	}
	if p.cfg.Brand.LogoDark != nil {
		mux.Handle("GET "+Prefix+"logo/dark", p.cfg.Brand.LogoDark)
	}
}

// theme answers with the stylesheet or the icon of an accent, which the address names:
// 3451c6.css, or 3451c6-8ea6ff.css with a colour for dark backgrounds.
func (p *Portal) theme(w http.ResponseWriter, r *http.Request) {
	name, form, _ := strings.Cut(r.PathValue("file"), ".")
	light, dark, two := strings.Cut(name, "-")
	accent := "#" + light
	if two {
		accent += ",#" + dark
	}
	a, err := ParseAccent(accent)
	if err != nil || len(light) != 6 || two && len(dark) != 6 {
		p.fail(w, r, nil, http.StatusNotFound, "error.nothing_here")
		return
	}
	content := ""
	switch form {
	case "css":
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		content = a.stylesheet()
	case "svg":
		w.Header().Set("Content-Type", "image/svg+xml")
		content = a.icon()
	default:
		p.fail(w, r, nil, http.StatusNotFound, "error.nothing_here")
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=86400")
	_, _ = w.Write([]byte(content)) // an error means that the client is gone
}
