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

// Setting is a server setting for a session.
type Setting struct {
	Name, Value string
	List        bool // the value is SQL: a list of names
	Since       int  // the first major version that has it; 0 for all
}

// Common returns the settings of every session, on the source and on the outbox. With
// them a value has the same text whatever a role or a database sets, only the caller ends
// a session that waits, and rows are complete or an error.
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

// Use gives the sessions of cfg a name and the settings. Call it after [Adapt].
func Use(cfg *pgconn.Config, name string, settings []Setting) {
	drop(cfg, settings)
	// Poolers accept these two, and with the first in the startup message the server
	// lists the session's name from the beginning.
	cfg.RuntimeParams["application_name"] = name
	cfg.RuntimeParams["client_encoding"] = "UTF8"
	cfg.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error { return Set(ctx, conn, settings) }
}

// drop removes from the startup message what Set sets later. The server ignores the case
// of a name, and a URL may write it in another case.
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

// Major returns the server's major version; 0 when the server did not report it.
func Major(conn *pgconn.PgConn) int {
	digits, _, _ := strings.Cut(conn.ParameterStatus("server_version"), ".")
	major, _ := strconv.Atoi(strings.TrimFunc(digits, func(r rune) bool { return r < '0' || r > '9' }))
	return major
}

// RequirePrimary rejects a standby, so that pgx uses the primary among several hosts. A
// single host that is a standby may be promoted soon. The server reports its state at
// startup (PostgreSQL 14 and newer), so this needs no query.
func RequirePrimary(_ context.Context, conn *pgconn.PgConn) error {
	if conn.ParameterStatus("in_hot_standby") == "on" {
		return errors.New("the server is a standby")
	}
	return nil
}
