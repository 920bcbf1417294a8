package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"walhook/internal/pgsession"
)

const wantURL = "want postgres://user:password@host:5432/database, " +
	"with special characters of the password written as %40 (for @), %2F (for /) and so on"

// checkURL says whether a database URL can be read, and warns of what of it has
// no effect. It quotes nothing that may be a password, and the URL may be so
// wrong that nobody can say where one is.
func checkURL(s *settings, name, text string) error {
	if text == "" {
		return nil
	}
	if scheme, ok := otherScheme(text); ok {
		return fmt.Errorf("%s is another driver's form of the URL: want %s", scheme, rightForm(text))
	}
	cfg, err := pgconn.ParseConfig(text)
	if fault, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("the URL names the file %s: %w", fault.Path, fault.Err)
	}
	if err != nil {
		return errors.New("not a PostgreSQL URL: " + wantURL)
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

// standbys is what makes libpq choose a standby.
var standbys = regexp.MustCompile(`target_session_attrs\s*=\s*'?(standby|prefer-standby|read-only)\b`)

// schemes are how URLs begin that are none of libpq's.
var schemes = regexp.MustCompile(`^(?i)([a-z][a-z0-9+.-]*:)(?:[a-z][a-z0-9+.-]*:)*(?://)?`)

func otherScheme(text string) (scheme string, other bool) {
	found := schemes.FindStringSubmatch(text)
	if found == nil || strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://") {
		return "", false
	}
	for _, known := range []string{"jdbc:", "r2dbc:", "pgsql:", "psql:", "pg:", "ecto:", "postgis:"} {
		if strings.EqualFold(found[1], known) {
			return found[0], true
		}
	}
	head := strings.ToLower(found[1])
	return found[0], strings.HasPrefix(head, "postgres") && strings.Contains(text, "//") // postgresql+psycopg://, POSTGRES://
}

// behindScheme is what stands behind a scheme where it is sure what is the host and
// what the password.
var behindScheme = regexp.MustCompile(`^(?:([A-Za-z0-9_.~-]+)(?::[^@]*)?@)?([A-Za-z0-9_.,:\[\]-]+)/([A-Za-z0-9_-]+)(?:\?([^@]*))?$`)

var userParameter = regexp.MustCompile(`(?:^|&)user=([A-Za-z0-9_.-]+)(?:&|$)`)

// rightForm is a URL of another driver as walhook wants it, without a password.
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
