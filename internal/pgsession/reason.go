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

// State returns the SQLSTATE of a server's error; "" for other errors.
func State(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}

// IsRefused reports whether the server rejects the role, its password, its certificate or
// a right, or this process rejects the server's certificate. Somebody has to correct that,
// and may do so while walhook runs.
func IsRefused(err error) bool {
	switch State(err) {
	case codeInvalidAuth, codeInvalidPass, codeNoRight:
		return true
	case "":
		return IsCertificate(err)
	}
	return false
}

// IsCertificate reports whether this process rejects the server's certificate, or the
// server rejects ours.
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

// IsWithoutTLS reports whether the server does not speak TLS, and the URL demands it.
func IsWithoutTLS(err error) bool { return err != nil && strings.Contains(err.Error(), refusedTLS) }

// IsPooler reports whether a connection pooler answers through which walhook cannot work. A
// pooler has the same code for most of its errors, so only the text identifies a parameter
// that it never accepts.
func IsPooler(err error) bool {
	if _, ok := errors.AsType[*PoolerError](err); ok {
		return true
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == codeProtocol && strings.Contains(pgErr.Message, "unsupported startup parameter")
}

// reasoned is the error of a failed connection with its cause first.
type reasoned struct {
	text string
	err  error
}

func (r *reasoned) Error() string { return r.text }
func (r *reasoned) Unwrap() error { return r.err }

// refusedTLS is pgx's error for a server without TLS. If pgx then tried without TLS, it
// stands before the real cause.
const refusedTLS = "server refused TLS connection"

// Reason puts the cause of a failed connection first: a server's answer comes before the
// failures of other attempts. It returns other errors unchanged.
func Reason(err error) error {
	failed, ok := err.(*pgconn.ConnectError) //nolint:errorlint // a wrapped one has its text already
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

// attempt is one attempt to connect.
type attempt struct {
	place    string // where
	reason   string
	answered bool // a server answered
	noTLS    bool // the server does not speak TLS
}

func newAttempt(err error) (a attempt) {
	a.reason = err.Error()
	if inner := errors.Unwrap(err); inner != nil {
		if place, ok := strings.CutSuffix(err.Error(), ": "+inner.Error()); ok && !strings.Contains(place, "AfterConnect") {
			a.place = shortPlace(place)
		}
		a.reason = inner.Error()
	}
	// A name that no resolver knows has one line for each attempt.
	var lines []string
	for line := range strings.Lines(a.reason) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	a.reason = strings.Join(lines, "; ")
	a.noTLS = strings.HasSuffix(a.reason, refusedTLS)
	if a.noTLS {
		a.reason = "the server does not speak TLS: " + refusedTLS + "; turn ssl on there, or choose another sslmode in the URL"
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		a.answered, a.reason = true, pgErr.Message+" (SQLSTATE "+pgErr.Code+")"
	}
	if pooler, ok := errors.AsType[*PoolerError](err); ok {
		a.answered, a.reason = true, pooler.Error()
	}
	if full, ok := errors.AsType[*fullError](err); ok {
		a.answered, a.reason = true, full.Error()
	}
	return a
}

// shortPlace returns pgx's "127.0.0.1:5432 (db)" without a redundant name.
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
