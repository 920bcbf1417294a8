package portal

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"walhook/outbox/admin"
)

// cookieName is the cookie of a session.
const cookieName = "walhook_portal"

// visit is one request of a session.
type visit struct {
	p       *Portal
	w       http.ResponseWriter
	r       *http.Request
	session admin.PortalSession
	cookie  string
	account string // of the page; "" on the operator's own pages
	invited string // whose portal the page looks like, outside of a session; "" for nobody's
	after   string // in how many seconds the API, which refused something, may be asked again
}

// visit finds the session of a request, or answers with the way to one.
func (p *Portal) visit(w http.ResponseWriter, r *http.Request) (*visit, bool) {
	v, err := p.find(w, r)
	switch {
	case err == nil:
		return v, true
	case errors.Is(err, admin.ErrNoPortalSession):
		p.fail(w, r, nil, http.StatusUnauthorized, "error.no_session")
	default:
		p.log.Error("session not looked up", zap.Error(err))
		p.fail(w, r, nil, http.StatusServiceUnavailable, "error.busy")
	}
	return nil, false
}

func (p *Portal) find(w http.ResponseWriter, r *http.Request) (*visit, error) {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return nil, admin.ErrNoPortalSession
	}
	session, err := p.cfg.Admin.FindPortalSession(r.Context(), cookie.Value, p.cfg.AdminToken)
	if err != nil {
		return nil, err
	}
	return &visit{p: p, w: w, r: r, session: session, cookie: cookie.Value}, nil
}

// derived returns a text that only the holder of the cookie and this process know.
func (v *visit) derived(purpose string) [sha256.Size]byte {
	mac := hmac.New(sha256.New, []byte(v.cookie))
	mac.Write([]byte("walhook portal " + purpose))
	return [sha256.Size]byte(mac.Sum(nil))
}

// formToken is the hidden field of every form: a page of another site cannot know it.
func (v *visit) formToken() string {
	if v.cookie == "" {
		return ""
	}
	token := v.derived("form")
	return base64.RawURLEncoding.EncodeToString(token[:])
}

func (v *visit) hasFormToken() bool {
	return subtle.ConstantTimeCompare([]byte(v.r.PostFormValue("form_token")), []byte(v.formToken())) == 1
}

// home leads a session to its first page.
func (p *Portal) home(w http.ResponseWriter, r *http.Request) {
	v, err := p.find(w, r)
	switch {
	case errors.Is(err, admin.ErrNoPortalSession):
		(&visit{p: p, w: w, r: r}).show(http.StatusOK, "welcome", nil)
	case err != nil:
		p.visit(w, r)
	case v.session.Operator:
		v.redirect("fleet")
	default:
		v.redirect("a", v.session.Account)
	}
}

// showEntry asks for a click before the link is used, because programs that preview
// messages open links, too.
func (p *Portal) showEntry(w http.ResponseWriter, r *http.Request) {
	link := r.URL.Query().Get("link")
	(&visit{p: p, w: w, r: r, invited: p.invited(r, link)}).show(http.StatusOK, "enter", map[string]any{"Link": link})
}

// invited returns the account of a link that can still be used, so that the page of the
// link already looks like that account's portal; "" for others. Addresses that show many
// wrong links are not looked up for a while.
func (p *Portal) invited(r *http.Request, link string) string {
	if p.cfg.Brands == nil || link == "" || p.peeks.guesses(p.cfg.Client(r)) {
		return ""
	}
	account, err := p.cfg.Admin.PeekPortalLink(r.Context(), link)
	if errors.Is(err, admin.ErrNoPortalLink) {
		p.peeks.wrong(p.cfg.Client(r))
	} else if err != nil {
		p.log.Error("portal link not looked up", zap.Error(err))
	}
	return account
}

// enter makes a session of a link.
func (p *Portal) enter(w http.ResponseWriter, r *http.Request) {
	leave, err := p.entries.turn(r.Context(), p.cfg.Client(r))
	if err != nil {
		p.fail(w, r, nil, http.StatusServiceUnavailable, "error.busy")
		return
	}
	defer leave()
	session, cookie, err := p.cfg.Admin.UsePortalLink(r.Context(), r.PostFormValue("link"))
	switch {
	case errors.Is(err, admin.ErrNoPortalLink):
		p.log.Info("portal link rejected", zap.Stringer("from", p.cfg.Client(r)))
		if p.refuses(w, r) {
			return
		}
		p.fail(w, r, nil, http.StatusForbidden, "error.no_link")
	case err != nil:
		p.log.Error("portal link not used", zap.Error(err))
		p.fail(w, r, nil, http.StatusServiceUnavailable, "error.busy")
	default:
		p.begin(w, r, session, cookie)
	}
}

func (p *Portal) showOperatorEntry(w http.ResponseWriter, r *http.Request) {
	(&visit{p: p, w: w, r: r}).show(http.StatusOK, "operator", map[string]any{"Off": p.cfg.AdminToken == ""})
}

// enterAsOperator makes a session for whoever shows the operator's token.
func (p *Portal) enterAsOperator(w http.ResponseWriter, r *http.Request) {
	given, want := sha256.Sum256([]byte(r.PostFormValue("token"))), sha256.Sum256([]byte(p.cfg.AdminToken))
	if p.cfg.AdminToken == "" || subtle.ConstantTimeCompare(given[:], want[:]) != 1 {
		p.log.Info("operator's token rejected", zap.Stringer("from", p.cfg.Client(r)))
		if p.refuses(w, r) {
			return
		}
		(&visit{p: p, w: w, r: r}).show(http.StatusForbidden, "operator", map[string]any{"Off": p.cfg.AdminToken == "", "Wrong": true})
		return
	}
	session, cookie, err := p.cfg.Admin.EnterPortal(r.Context(), p.cfg.AdminToken)
	if err != nil {
		p.log.Error("session not made", zap.Error(err))
		p.fail(w, r, nil, http.StatusServiceUnavailable, "error.busy")
		return
	}
	p.begin(w, r, session, cookie)
}

// refuses counts a wrong entry, and answers where there were too many. It never refuses
// a right one: behind a proxy many people share one address.
func (p *Portal) refuses(w http.ResponseWriter, r *http.Request) bool {
	if !p.entries.wrong(p.cfg.Client(r)) {
		return false
	}
	select { // so that the next guess cannot follow at once
	case <-r.Context().Done():
	case <-time.After(refusedPause):
	}
	w.Header().Set("Retry-After", strconv.Itoa(int(entryEvery.Seconds())))
	p.fail(w, r, nil, http.StatusTooManyRequests, "error.too_many_entries")
	return true
}

func (p *Portal) begin(w http.ResponseWriter, r *http.Request, session admin.PortalSession, cookie string) {
	v := &visit{p: p, w: w, r: r, session: session, cookie: cookie}
	p.log.Info("audit", zap.String("action", "portal entered"), zap.String("who", v.name()), zap.String("account", session.Account), zap.Stringer("from", p.cfg.Client(r)))
	v.setCookie(cookie, time.Until(session.ExpiresAt))
	if session.Operator {
		v.redirect("fleet")
		return
	}
	v.redirect("a", session.Account)
}

// name stands in the audit.
func (v *visit) name() string { return v.session.Name() }

func (v *visit) setCookie(value string, lasts time.Duration) {
	http.SetCookie(v.w, &http.Cookie{
		Name: cookieName, Value: value, Path: v.p.base, MaxAge: max(int(lasts.Seconds()), -1),
		HttpOnly: true, Secure: v.p.cfg.URL.Scheme == "https", SameSite: http.SameSiteLaxMode,
	})
}

// leave ends the session.
func (p *Portal) leave(v *visit) {
	if err := p.cfg.Admin.EndPortalSession(v.r.Context(), v.session.ID); err != nil {
		p.log.Error("session not ended", zap.Error(err))
		v.fail(http.StatusServiceUnavailable, "error.busy")
		return
	}
	v.setCookie("", -time.Second)
	v.redirect()
}

// redirect leads to a page of the portal, and to nowhere else: no part of the address
// is a request's.
func (v *visit) redirect(parts ...string) { v.redirectSaying("", parts...) }

// redirectSaying leads to a page that shows what was done, by its key among the texts.
func (v *visit) redirectSaying(done string, parts ...string) {
	to := v.p.pages.path(parts...)
	if done != "" {
		to += "?done=" + done
	}
	v.w.Header().Set("Location", to)
	v.w.WriteHeader(http.StatusSeeOther)
}
