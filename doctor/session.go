package doctor

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/pgsession"
	"walhook/schemas"
)

// Session is a connection for checks. It is read only.
type Session struct {
	*pgx.Conn
	Where    string // source or outbox: the name in findings and steps
	Role     string
	Database string
	Version  int // server_version_num
	pooled   bool
	used     bool // the pooler gave a session as an earlier client had left it
	// settings are the server settings that the role gets by default.
	settings map[string]setting
}

// setting is a server setting in this session.
type setting struct {
	value  string // in its unit
	source string // pg_settings.source
}

const (
	// connectTimeout bounds connecting, unless the URL sets a timeout.
	connectTimeout = 5 * time.Second

	// The bounds of every query of a Session. The server reads a few tables for an
	// answer, and waits if another session holds an exclusive lock on one.
	limitsSQL = `
		SET default_transaction_read_only = on; SET statement_timeout = '5s'; SET lock_timeout = '500ms';
		SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'`

	// It runs before the session sets anything.
	whoSQL = `
		SELECT session_user::pg_catalog.text, pg_catalog.current_database()::pg_catalog.text,
			pg_catalog.current_setting('server_version_num')::pg_catalog.int4`

	// A pooler that resets its sessions leaves none to the next client.
	foreignSQL = `SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_statements`

	settingsSQL = `SELECT name, setting, source FROM pg_catalog.pg_settings`
)

// Open connects as walhook does, reads the role's settings, and bounds the following
// queries.
func Open(ctx context.Context, cfg *pgx.ConnConfig, where string) (*Session, error) {
	cfg.RuntimeParams["application_name"] = "walhook doctor"
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	conn, err := pgsession.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &Session{Conn: conn, Where: where, pooled: pgsession.IsPooled(conn.PgConn()), settings: map[string]setting{}}
	if err := s.begin(ctx); err != nil {
		s.Close(ctx)
		return nil, fmt.Errorf("read the settings of the %s: %w", where, err)
	}
	return s, nil
}

func (s *Session) begin(ctx context.Context) error {
	if s.pooled {
		results, err := s.PgConn().Exec(ctx, foreignSQL).ReadAll()
		if err != nil {
			return err
		}
		s.used = string(results[0].Rows[0][0]) != "0"
	}
	if err := s.QueryRow(ctx, whoSQL).Scan(&s.Role, &s.Database, &s.Version); err != nil {
		return err
	}
	rows, err := s.Query(ctx, settingsSQL)
	if err != nil {
		return err
	}
	var name string
	var one setting
	if _, err = pgx.ForEachRow(rows, []any{&name, &one.value, &one.source}, func() error {
		s.settings[name] = one
		return nil
	}); err != nil {
		return err
	}
	_, err = s.PgConn().Exec(ctx, limitsSQL).ReadAll()
	return err
}

// Close ends the connection within a second.
func (s *Session) Close(ctx context.Context) { pgsession.Close(ctx, s.Conn) }

// ID returns the id of a check of this database.
func (s *Session) ID(name string) string { return s.Where + "." + name }

// Value returns a server setting in its unit; "" if this version does not have it.
func (s *Session) Value(name string) string { return s.settings[name].value }

// Number returns a numeric server setting in its unit; -1 if there is none.
func (s *Session) Number(name string) int64 {
	n, err := strconv.ParseInt(s.settings[name].value, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// Restore returns the steps by which the role's next sessions get value: they undo a
// setting of the role or the database.
func (s *Session) Restore(name, value string) Steps {
	steps := s.restore(name, value)
	if name == "default_transaction_read_only" && steps[0].Kind == SQL {
		// The setting applies to this statement, too.
		steps[0].Text = "SET default_transaction_read_only = off; " + steps[0].Text
	}
	return steps
}

func (s *Session) restore(name, value string) Steps {
	role, database := schemas.QuoteIdent(s.Role), schemas.QuoteIdent(s.Database)
	switch s.settings[name].source {
	case "user":
		return Ask(s.Where, "", fmt.Sprintf("ALTER ROLE %s RESET %s", role, name))
	case "database":
		return Ask(s.Where, "ownership of the database", fmt.Sprintf("ALTER DATABASE %s RESET %s", database, name))
	case "database user":
		return Ask(s.Where, "", fmt.Sprintf("ALTER ROLE %s IN DATABASE %s RESET %s", role, database, name))
	case "client":
		return Steps{{Kind: Address, On: s.Where, Text: name + "=" + value}}
	}
	return Ask(s.Where, "", fmt.Sprintf("ALTER ROLE %s SET %s = %s", role, name, QuoteLiteral(value)))
}

// QuoteLiteral writes text as an SQL string literal.
func QuoteLiteral(text string) string {
	quoted := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	if strings.Contains(text, `\`) { // independent of standard_conforming_strings
		quoted = "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
