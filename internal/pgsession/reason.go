package pgsession

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs (PostgreSQL manual, appendix "Error Codes").
const (
	codeProtocol    = "08P01"
	codeInvalidAuth = "28000"
	codeInvalidPass = "28P01"
	codeNoRight     = "42501"
	codeSyntax      = "42601"
)

// State is the SQLSTATE of an error that a server answered; "" for others.
func State(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}

// IsRefused says that the server is there and turns down the role, its password,
// its certificate or a right of it, or that its own certificate is not accepted:
// somebody has to correct that, and may while walhook runs.
func IsRefused(err error) bool {
	switch State(err) {
	case codeInvalidAuth, codeInvalidPass, codeNoRight:
		return true
	case "":
		return IsCertificate(err)
	}
	return false
}

// IsCertificate says that the server's certificate is not accepted, or that the
// server did not accept ours.
func IsCertificate(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	alert, ok := errors.AsType[*net.OpError](err)
	return ok && alert.Op == "remote error" // how package tls reports the peer's alert
}

// IsPooler says that a connection pooler answers and that walhook cannot work
// through it. A pooler answers most of its errors with one code, whatever they
// are, so that only the text tells a parameter that it will never take.
func IsPooler(err error) bool {
	if _, ok := errors.AsType[*PoolerError](err); ok {
		return true
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == codeProtocol && strings.Contains(pgErr.Message, "unsupported startup parameter")
}

// reasoned is a failed connection in other words.
type reasoned struct {
	text string
	err  error
}

func (r *reasoned) Error() string { return r.text }
func (r *reasoned) Unwrap() error { return r.err }

// refusedTLS is how pgx reports a server without TLS. It stands before the real
// cause where the connection was then tried without.
const refusedTLS = "server refused TLS connection"

// Reason puts the cause of a failed connection first, and what a server answered
// before what was tried elsewhere. Other errors stay as they are.
func Reason(err error) error {
	failed, ok := err.(*pgconn.ConnectError) //nolint:errorlint // one that is wrapped has its words already
	if !ok {
		return err
	}
	var all []attempt
	for _, one := range parts(failed.Unwrap()) {
		all = append(all, newAttempt(one))
	}
	var first, later []string
	for i, one := range all {
		if one.noTLS && (i+1 < len(all) && all[i+1].place == one.place || i > 0 && all[i-1].place == one.place) {
			continue
		}
		words := one.reason
		if one.place != "" {
			words += " (" + one.place + ")"
		}
		if slices.Contains(first, words) || slices.Contains(later, words) {
			continue
		}
		if one.answered {
			first = append(first, words)
		} else {
			later = append(later, words)
		}
	}
	return &reasoned{strings.Join(append(first, later...), "; "), err}
}

// attempt is one of what was tried.
type attempt struct {
	place    string // where
	reason   string
	answered bool // by a server
	noTLS    bool // the server speaks none
}

func newAttempt(err error) (a attempt) {
	a.reason = err.Error()
	if inner := errors.Unwrap(err); inner != nil {
		if place, ok := strings.CutSuffix(err.Error(), ": "+inner.Error()); ok && !strings.Contains(place, "AfterConnect") {
			a.place = shortPlace(place)
		}
		a.reason = inner.Error()
	}
	a.noTLS = strings.HasSuffix(a.reason, refusedTLS)
	if a.noTLS {
		a.reason = "the server does not speak TLS: " + refusedTLS
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		a.answered, a.reason = true, pgErr.Message+" (SQLSTATE "+pgErr.Code+")"
	}
	if pooler, ok := errors.AsType[*PoolerError](err); ok {
		a.answered, a.reason = true, pooler.Error()
	}
	return a
}

// shortPlace is pgx's "127.0.0.1:5432 (db)" without a name that says no more.
func shortPlace(place string) string {
	address, name, ok := strings.Cut(strings.TrimSuffix(place, ")"), " (")
	if host, _, err := net.SplitHostPort(address); ok && (err == nil && host == name || strings.HasPrefix(address, name)) {
		return address
	}
	return place
}

func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}
