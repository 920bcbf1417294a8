package portal

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"walhook/api"
	"walhook/outbox/admin"
)

// Config configures the portal.
type Config struct {
	// API is the handler of the subscription API, which the portal calls by [api.As].
	API   http.Handler
	Admin *admin.Admin
	// AdminToken is the operator's token; without it no operator enters.
	AdminToken string
	// URL is the public address of the portal. https makes its cookie Secure.
	URL *url.URL
	// Client determines the address that an entry counts for.
	Client func(*http.Request) netip.Addr
	// Offer returns what the catalog in force offers, as the API's does.
	Offer func(context.Context) *api.Offer
	// Reasons say, for accounts, what a reason of an attempt or a dead letter means and
	// what to do.
	Reasons map[string]string
	// Causes say it for operators, whose server it is not.
	Causes  map[string]string
	Version string
	// Brand is what the portal looks like.
	Brand Brand
	// Brands returns what the rows of an account and of those above it say of the brand, the
	// account's own first; nil for a configuration without.
	Brands func(ctx context.Context, account string) ([]admin.AccountBrand, error)
	// FrameAncestors are the origins whose pages may show the portal in a frame, as
	// [ParseFrameAncestors] returns them.
	FrameAncestors []string
	// Doctor makes the checks of `walhook doctor`; nil where this process cannot.
	Doctor func(context.Context) ([]Check, error)
	// Source asks the source about the slot, which it compares with what the outbox has
	// stored; nil where this process has no source.
	Source func(context.Context, *admin.Status) (Source, error)
}

// Prefix is the path under which the portal is served.
const Prefix = "/portal/"

// Portal serves the pages.
type Portal struct {
	cfg     Config
	log     *zap.Logger
	base    string // the public path, with a slash at both ends
	pages   *pages
	entries *entryLimit
	peeks   *entryLimit // of links whose page is shown before they are used
	ignored *ignoredValues
	sites   *http.CrossOriginProtection
	doctor  *examination
	source  *sourceFacts
	handler http.Handler
	routes  []route
}

// route is a page or a form, for the tests that go through all of them.
type route struct{ method, path string }

// New returns the portal. Its handler serves everything below [Prefix].
func New(cfg Config, log *zap.Logger) (*Portal, error) {
	p := &Portal{cfg: cfg, log: log.Named("portal"), base: path.Join("/", cfg.URL.EscapedPath()) + "/", entries: newEntryLimit(), peeks: newEntryLimit(), sites: http.NewCrossOriginProtection()}
	p.ignored = newIgnoredValues(p.log)
	p.doctor, p.source = &examination{run: cfg.Doctor, log: p.log}, &sourceFacts{ask: cfg.Source, log: p.log}
	if p.base == "//" {
		p.base = "/"
	}
	if err := p.sites.AddTrustedOrigin(cfg.URL.Scheme + "://" + cfg.URL.Host); err != nil {
		return nil, fmt.Errorf("the portal's address: %w", err)
	}
	var err error
	if p.pages, err = newPages(p.base, cfg.Reasons); err != nil {
		return nil, err
	}
	p.pages.causes = cfg.Causes
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Prefix+"static/{file}", p.serveFile)
	p.registerLook(mux)
	p.open(mux, "GET", "", p.home)
	p.open(mux, "GET", "enter", p.showEntry)
	p.open(mux, "POST", "enter", p.enter)
	p.open(mux, "GET", "operator", p.showOperatorEntry)
	p.open(mux, "POST", "operator", p.enterAsOperator)
	p.registerAccount(mux)
	p.registerOperator(mux)
	p.within(mux, "POST", "leave", p.leave)
	mux.HandleFunc(Prefix, func(w http.ResponseWriter, r *http.Request) {
		v, err := p.find(w, r) // whose session it is, the page looks like theirs
		if err != nil {
			v = nil
		}
		p.fail(w, r, v, http.StatusNotFound, "error.nothing_here")
	})
	p.handler = p.outer(mux)
	return p, nil
}

func (p *Portal) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.handler.ServeHTTP(w, r) }

// pageTimeout bounds a page, which may make several calls of the API.
const pageTimeout = 45 * time.Second

// maxForm bounds a form; the API has its own bound.
const maxForm = 512 << 10

// referrerPolicy sends no address of a page to another host, where it could show a one-time
// link. With no-referrer a browser would also send "Origin: null" with the portal's own
// forms, and at addresses without TLS it sends nothing else that says where a form is from.
const referrerPolicy = "same-origin"

// outer wraps every route: headers, bounds, requests of other sites, panics.
func (p *Portal) outer(mux *http.ServeMux) http.Handler {
	content := policy(p.cfg.FrameAncestors)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", content)
		setFraming(h, p.cfg.FrameAncestors)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", referrerPolicy)
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Cache-Control", "no-store")
		if p.cfg.URL.Scheme == "https" {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		defer func() {
			if fault := recover(); fault != nil {
				p.log.Error("panic in page", zap.Any("panic", fault), zap.ByteString("stack", debug.Stack()))
				p.fail(w, r, nil, http.StatusInternalServerError, "error.internal")
			}
		}()
		if err := p.sites.Check(r); err != nil {
			p.fail(w, r, nil, http.StatusForbidden, "error.other_site")
			return
		}
		ctx, cancel := context.WithTimeoutCause(r.Context(), pageTimeout, errors.New("answer a page of the portal"))
		defer cancel()
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		mux.ServeHTTP(w, r.WithContext(ctx))
	})
}

// open registers a route that needs no session.
func (p *Portal) open(mux *http.ServeMux, method, path string, handle http.HandlerFunc) {
	p.routes = append(p.routes, route{method, path})
	pattern := method + " " + Prefix + path
	if path == "" {
		pattern += "{$}"
	}
	mux.HandleFunc(pattern, handle)
}

// within registers a route that needs a session. A POST also needs the form's token.
func (p *Portal) within(mux *http.ServeMux, method, path string, handle func(*visit)) {
	p.routes = append(p.routes, route{method, path})
	mux.HandleFunc(method+" "+Prefix+path, func(w http.ResponseWriter, r *http.Request) {
		v, ok := p.visit(w, r)
		if !ok {
			return
		}
		if method == http.MethodPost && !v.hasFormToken() {
			v.fail(http.StatusForbidden, "error.form_token")
			return
		}
		handle(v)
	})
}

// account registers a route below an account, which must be the session's own unless
// the session is an operator's.
func (p *Portal) account(mux *http.ServeMux, method, path string, handle func(*visit)) {
	p.within(mux, method, "a/{account}"+path, func(v *visit) {
		v.account = v.r.PathValue("account")
		if !v.session.Operator && v.account != v.session.Account {
			v.account = "" // whether it exists, and has that page, makes no difference
			v.fail(http.StatusNotFound, "error.other_account", v.session.Account)
			return
		}
		handle(v)
	})
}

// forOperator registers a route that needs an operator's session. For others it does
// not exist.
func (p *Portal) forOperator(mux *http.ServeMux, method, path string, handle func(*visit)) {
	p.within(mux, method, path, func(v *visit) {
		if !v.session.Operator {
			v.fail(http.StatusNotFound, "error.nothing_here")
			return
		}
		handle(v)
	})
}

// fail shows an error page in words. v is nil outside of a session.
func (p *Portal) fail(w http.ResponseWriter, r *http.Request, v *visit, status int, text string, args ...any) {
	if v == nil {
		v = &visit{p: p, w: w, r: r}
	}
	v.fail(status, text, args...)
}
