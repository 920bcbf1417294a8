package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5/pgconn"

	"walhook/internal/pgsession"
)

const wantURL = "want postgres://user:password@host:5432/database, " +
	"with special characters of the password written as %40 (for @), %2F (for /) and so on"

// checkURL validates a database URL and warns about parameters without effect. Its
// error quotes nothing that may be a password; in a malformed URL that can be any part.
func checkURL(s *settings, name, text string) error {
	if text == "" {
		return nil
	}
	if scheme, ok := otherScheme(text); ok {
		return fmt.Errorf("%s is another driver's form of the URL: want %s", scheme, rightForm(text))
	}
	if strayAt(text) {
		return errUnescaped
	}
	cfg, err := pgconn.ParseConfig(text)
	if fault, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("the URL names the file %s: %w", fault.Path, fault.Err)
	}
	if err != nil {
		if fault := parameterFault(text); fault != nil {
			return fault
		}
		return errors.New("not a PostgreSQL URL: " + wantURL)
	}
	for _, host := range hostsOf(cfg) {
		if !isHost(host) {
			return errUnescaped
		}
	}
	if wrong := standbys.FindString(text + " target_session_attrs=" + os.Getenv("PGTARGETSESSIONATTRS")); wrong != "" {
		return fmt.Errorf("%s: walhook needs the primary; omit the parameter or use read-write", wrong)
	}
	ignored, err := pgsession.Adapt(cfg)
	if err != nil {
		return fmt.Errorf("the URL's parameter %w", err)
	}
	if len(ignored) > 0 {
		s.warnings = append(s.warnings, fmt.Sprintf("--%s: walhook ignores these parameters of the URL or of PG… variables: %s", name, strings.Join(ignored, ", ")))
	}
	return nil
}

// errUnescaped says that a URL contains an unescaped character. A part of the password
// may be parsed as the host, so the error quotes nothing of the URL.
var errUnescaped = errors.New("its host is no host name, address or socket directory. Percent-encode special characters of user name and password: " + wantURL)

// lowerScheme returns a database URL with its scheme in lower case, as pgx requires. A
// scheme is case-insensitive (RFC 3986, section 3.1).
func lowerScheme(text string) string {
	scheme, rest, found := strings.Cut(text, "://")
	if lower := strings.ToLower(scheme); found && (lower == "postgres" || lower == "postgresql") {
		return lower + "://" + rest
	}
	return text
}

// strayAt reports whether a URL has an @ that comes from a password which is not
// percent-encoded: after the @ that ends the user information, in the database name, or
// in a parameter that never contains one.
func strayAt(text string) bool {
	scheme, rest, found := strings.Cut(text, "://")
	if !found || scheme != "postgres" && scheme != "postgresql" {
		return false
	}
	before, query, _ := strings.Cut(rest, "?")
	authority, database, _ := strings.Cut(before, "/")
	if strings.Count(authority, "@") > 1 || strings.Contains(database, "@") {
		return true
	}
	for one := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(one, "=")
		if strings.Contains(name, "@") || strings.Contains(value, "@") && !atParameters.MatchString(name) {
			return true
		}
	}
	return false
}

// atParameters are the parameters of libpq whose values may contain an @.
var atParameters = regexp.MustCompile(`^(user|password|dbname|database|options|application_name|fallback_application_name|passfile|service|servicefile|ssl[a-z]+|krbsrvname|requirepeer)$`)

// hostsOf returns all hosts of a connection.
func hostsOf(cfg *pgconn.Config) []string {
	hosts := []string{cfg.Host}
	for _, other := range cfg.Fallbacks {
		hosts = append(hosts, other.Host)
	}
	return hosts
}

// isHost reports whether a text is a name, an address or a socket directory.
func isHost(host string) bool {
	if strings.ContainsFunc(host, unicode.IsControl) {
		return false
	}
	if _, err := netip.ParseAddr(host); err == nil || strings.HasPrefix(host, "/") {
		return true
	}
	return !strings.ContainsFunc(host, func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsMark(c) && !unicode.IsDigit(c) && !strings.ContainsRune("-._", c)
	})
}

// assignment matches a parameter of a URL, or of the key=value form.
var assignment = regexp.MustCompile(`(?:^|[?&\s])([a-z_]+)\s*=\s*('(?:[^'\\]|\\.)*'|[^&\s]*)`)

// parameterFault names the parameter because of which a URL is invalid: the one that is
// invalid by itself, too. It returns nil if there is none.
func parameterFault(text string) error {
	if _, err := pgconn.ParseConfig("postgres://h/d"); err != nil {
		return errors.New("a PG… variable of the environment has a value that cannot be used: correct or unset it")
	}
	of, parameters := "postgres://h/d?", text
	if _, rest, isURL := strings.Cut(text, "://"); isURL {
		_, parameters, _ = strings.Cut(rest, "?")
	} else {
		of = "host=h "
	}
	for _, one := range assignment.FindAllStringSubmatch(parameters, -1) {
		if _, err := pgconn.ParseConfig(of + one[1] + "=" + one[2]); err == nil {
			continue
		}
		switch one[1] {
		case "sslmode":
			return errors.New("the URL's parameter sslmode: want disable, allow, prefer, require, verify-ca or verify-full")
		case "connect_timeout":
			return errors.New("the URL's parameter connect_timeout: want a whole number of seconds")
		}
		return fmt.Errorf("the URL's parameter %s has a value that cannot be used", one[1])
	}
	return nil
}

// standbys matches the parameters by which libpq chooses a standby.
var standbys = regexp.MustCompile(`target_session_attrs\s*=\s*'?(standby|prefer-standby|read-only)\b`)

// schemes matches the beginning of a URL with another scheme than libpq's.
var schemes = regexp.MustCompile(`^(?i)([a-z][a-z0-9+.-]*:)(?:[a-z][a-z0-9+.-]*:)*(?://)?`)

func otherScheme(text string) (scheme string, other bool) {
	found := schemes.FindStringSubmatch(text)
	if text = lowerScheme(text); found == nil || strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://") {
		return "", false
	}
	for _, known := range []string{"jdbc:", "r2dbc:", "pgsql:", "psql:", "pg:", "ecto:", "postgis:"} {
		if strings.EqualFold(found[1], known) {
			return found[0], true
		}
	}
	head := strings.ToLower(found[1])
	return found[0], strings.HasPrefix(head, "postgres") && strings.Contains(text, "//") // postgresql+psycopg://
}

// behindScheme matches the rest of a URL if host and password can be told apart.
var behindScheme = regexp.MustCompile(`^(?:([A-Za-z0-9_.~-]+)(?::[^@]*)?@)?([A-Za-z0-9_.,:\[\]-]+)/([A-Za-z0-9_-]+)(?:\?([^@]*))?$`)

var userParameter = regexp.MustCompile(`(?:^|&)user=([A-Za-z0-9_.-]+)(?:&|$)`)

// rightForm converts another driver's URL into the form of walhook, without a password.
func rightForm(text string) string {
	scheme, _ := otherScheme(text)
	parts := behindScheme.FindStringSubmatch(text[len(scheme):])
	if parts == nil || parts[1] == "" && strings.Contains(text, "@") {
		return strings.TrimPrefix(wantURL, "want ")
	}
	user := parts[1]
	if found := userParameter.FindStringSubmatch(parts[4]); user == "" && found != nil {
		user = found[1]
	}
	if user == "" {
		user = "USER"
	}
	return fmt.Sprintf("postgres://%s:PASSWORD@%s/%s", user, parts[2], parts[3])
}
