package pgsession

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Setting is one that a session is to have.
type Setting struct {
	Name, Value string
	List        bool // the value is SQL: a list of names
	Since       int  // the first major version that knows it; 0 for every one
}

// Common are the settings that every session has, on the source and on the outbox:
// values have one text whatever a role or a database sets, a session that waits is
// ended by its caller, and rows come whole or not at all.
func Common() []Setting {
	return []Setting{
		{Name: "client_encoding", Value: "UTF8"},
		{Name: "DateStyle", Value: "ISO, MDY"},
		{Name: "IntervalStyle", Value: "postgres"},
		{Name: "TimeZone", Value: "UTC"},
		{Name: "extra_float_digits", Value: "3"},
		{Name: "bytea_output", Value: "hex"},
		{Name: "lock_timeout", Value: "0"},
		{Name: "idle_session_timeout", Value: "0", Since: 14},
		{Name: "transaction_timeout", Value: "0", Since: 17},
		{Name: "default_transaction_isolation", Value: "read committed"},
		{Name: "row_security", Value: "off"},
	}
}

// Use makes a session of cfg one that is named name and has the settings. It
// comes after [Adapt].
func Use(cfg *pgconn.Config, name string, settings []Setting) {
	drop(cfg, settings)
	// Poolers know these two, and a server tells the first in its list of
	// sessions from the beginning.
	cfg.RuntimeParams["application_name"] = name
	cfg.RuntimeParams["client_encoding"] = "UTF8"
	cfg.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error { return Set(ctx, conn, settings) }
}

// drop keeps out of the start-up message what is set afterwards. The server takes
// a name in any case, and a URL may have it in another.
func drop(cfg *pgconn.Config, settings []Setting) {
	maps.DeleteFunc(cfg.RuntimeParams, func(name, _ string) bool {
		return slices.ContainsFunc(settings, func(one Setting) bool { return strings.EqualFold(name, one.Name) })
	})
}

// Set gives a session its settings, in one round trip.
func Set(ctx context.Context, conn *pgconn.PgConn, settings []Setting) error {
	major := Major(conn)
	var sql strings.Builder
	for _, one := range settings {
		value := one.Value
		if !one.List {
			value = "'" + strings.ReplaceAll(value, "'", "''") + "'"
		}
		if major >= one.Since {
			fmt.Fprintf(&sql, "SET %s = %s;", one.Name, value)
		}
	}
	if sql.Len() == 0 {
		return nil
	}
	if _, err := conn.Exec(ctx, sql.String()).ReadAll(); err != nil {
		return fmt.Errorf("set the session's settings: %w", err)
	}
	return nil
}

// Major is the server's major version; 0 when it did not say.
func Major(conn *pgconn.PgConn) int {
	digits, _, _ := strings.Cut(conn.ParameterStatus("server_version"), ".")
	major, _ := strconv.Atoi(strings.TrimFunc(digits, func(r rune) bool { return r < '0' || r > '9' }))
	return major
}

// RequirePrimary turns down a standby, so that of several hosts the primary is
// used; a single one that is not may be on its way there. The server reports it
// by itself (PostgreSQL 14 and newer), so that nothing has to be asked.
func RequirePrimary(_ context.Context, conn *pgconn.PgConn) error {
	if conn.ParameterStatus("in_hot_standby") == "on" {
		return errors.New("the server is a standby")
	}
	return nil
}
