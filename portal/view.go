package portal

import (
	"bytes"
	"crypto/rand"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.yaml.in/yaml/v3"

	"walhook/schemas"
)

//go:embed templates texts
var pageFiles embed.FS

// pages are the templates with their words.
type pages struct {
	base    string
	reasons map[string]string // what a reason means, by its name
	causes  map[string]string // the same, for operators
	texts   map[string]string
	files   map[string]file // that every page needs
	byName  map[string]*template.Template
}

func newPages(base string, reasons map[string]string) (*pages, error) {
	p := &pages{base: base, reasons: reasons, texts: map[string]string{}, byName: map[string]*template.Template{}}
	text, err := pageFiles.ReadFile("texts/en.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, &p.texts)
	}
	if err != nil {
		return nil, fmt.Errorf("read the portal's texts: %w", err)
	}
	if p.files, err = readFiles(); err != nil {
		return nil, err
	}
	frame, err := template.New("layout.html").Funcs(p.functions()).ParseFS(pageFiles, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, fmt.Errorf("read the portal's templates: %w", err)
	}
	files, err := fs.Glob(pageFiles, "templates/page_*.html")
	for _, file := range files {
		one, fault := frame.Clone()
		if fault == nil {
			one, fault = one.ParseFS(pageFiles, file)
		}
		if fault != nil {
			return nil, fmt.Errorf("read the portal's templates: %w", fault)
		}
		p.byName[strings.TrimSuffix(strings.TrimPrefix(path.Base(file), "page_"), ".html")] = one
	}
	return p, err
}

func (p *pages) functions() template.FuncMap {
	return template.FuncMap{
		"t": p.text, "path": p.path, "segment": url.PathEscape, "static": func(name string) string { return p.base + "static/" + name + "?v=" + p.files[name].hash },
		"query": query, "when": when, "ago": p.ago, "clock": clock, "now": time.Now, "isolated": isolated, "duration": duration, "size": size, "pretty": pretty, "reason": p.reason, "cause": p.cause, "state": p.state,
		"eventState": p.eventState, "outcome": p.outcome, "tried": p.tried, "endpointState": p.endpointState, "has": has, "alike": alike, "counted": counted, "dict": dict, "hoursAgo": inHours, "nonce": rand.Text,
		"mostWaiting": func() int64 { return mostWaiting }, "mostWaitingInLists": func() int64 { return mostWaitingInLists }, "list": func(all ...string) []string { return all },
	}
}

// text returns the words of a key. A key without words shows itself, which a test finds.
func (p *pages) text(key string, args ...any) string {
	format, known := p.texts[key]
	if !known {
		return key
	}
	if len(args) == 0 {
		return format
	}
	args = slices.Clone(args)
	for i, arg := range args {
		if value, ok := arg.(string); ok {
			args[i] = isolated(value)
		}
	}
	return fmt.Sprintf(format, args...)
}

// path joins parts to an address below the portal, each as one segment.
func (p *pages) path(parts ...string) string {
	escaped := make([]string, len(parts))
	for i, part := range parts {
		escaped[i] = url.PathEscape(part)
	}
	return p.base + strings.Join(escaped, "/")
}

// dict makes the arguments of a part of a page.
func dict(pairs ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1]
	}
	return m
}

// query writes pairs of names and values, without those that are empty.
func query(pairs ...string) string {
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	if len(values) == 0 {
		return ""
	}
	return "?" + values.Encode()
}

// shown is what every template gets.
type shown struct {
	Account   string // "" outside of an account
	Operator  bool
	Inside    bool // there is a session
	FormToken string
	Until     time.Time
	Page      string
	Brand     look
	Done      *mark // what was done just now, or why nothing was
	Data      any
}

// show writes a page. Without a session it has no navigation.
func (v *visit) show(status int, page string, data any) {
	s := shown{
		Account: v.account, Operator: v.session.Operator, Inside: v.cookie != "", FormToken: v.formToken(), Until: v.session.ExpiresAt,
		Page: page, Brand: v.p.lookOf(v.brand()), Data: data,
	}
	if done := v.r.URL.Query().Get("done"); done != "" {
		if _, known := v.p.pages.texts["done."+done]; known { // nothing else of the address is shown
			kind := "good"
			if strings.HasPrefix(done, "not_") {
				kind = "warn"
			}
			s.Done = new(v.p.pages.mark(kind, "done."+done))
		}
	}
	var b bytes.Buffer
	if err := v.p.pages.byName[page].ExecuteTemplate(&b, "layout.html", s); err != nil {
		v.p.log.Error("page not written", zap.String("page", page), zap.Error(err))
		http.Error(v.w, v.p.pages.text("error.internal"), http.StatusInternalServerError)
		return
	}
	if v.after != "" && (status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable) {
		v.w.Header().Set("Retry-After", v.after)
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.WriteHeader(status)
	_, _ = v.w.Write(b.Bytes()) // an error means that the client is gone
}

// fail shows what is wrong in words.
func (v *visit) fail(status int, text string, args ...any) {
	v.show(status, "error", map[string]any{"Status": status, "Text": v.p.pages.text(text, args...), "SignedOut": text == "error.no_session"})
}

// unreadable shows an answer of the API that the page cannot read, which is our fault.
func (v *visit) unreadable(err error) {
	v.p.log.Error("page failed", zap.Error(err))
	v.fail(http.StatusInternalServerError, "error.internal")
}

// storable reports whether PostgreSQL can hold a text as it is.
func storable(text string) bool { return schemas.Storable(text) == text }
