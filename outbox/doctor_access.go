package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/internal/pgsession"
	"walhook/schemas"
)

// grantCreate returns the step after which a role may create the outbox in a database.
func grantCreate(database, role string) doctor.Steps {
	return doctor.Ask(here, "ownership of the database", fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s", schemas.QuoteIdent(database), schemas.QuoteIdent(role)))
}

// ownSchema returns the step that makes a role the owner of the outbox's schema.
func ownSchema(role string) doctor.Steps {
	return doctor.Ask(here, doctor.Superuser, "ALTER SCHEMA walhook OWNER TO "+schemas.QuoteIdent(role))
}

func ownTable(name, role string) doctor.Steps {
	return doctor.Ask(here, doctor.Superuser, fmt.Sprintf("ALTER TABLE walhook.%s OWNER TO %s", schemas.QuoteIdent(name), schemas.QuoteIdent(role)))
}

// AccessPlan is what a DBA runs once, so that afterwards doctor finds no failure on the outbox
// and setup may create it. Its statements are those that doctor prints.
type AccessPlan struct {
	System string // the server's system identifier; "" if Unseen is set
	Exists bool   // the role does, so it has a password already

	// The statements, in the order in which they run. Contents run in the outbox's
	// database, the others in any.
	Role, Settings, Database, Contents doctor.Steps

	// Unseen is why the server let nobody look. The statements are then those for a server
	// that has neither the role nor the database; those that do not fit are skipped when
	// they run.
	Unseen error
}

const (
	// The role $1 and the database $2, which need not exist.
	plannedSQL = `
		SELECT (SELECT system_identifier::text FROM pg_control_system()), current_database() = $2,
			(SELECT rolcanlogin FROM pg_roles WHERE rolname = $1),
			(SELECT has_database_privilege(r.oid, d.oid, 'CONNECT') FROM pg_database d LEFT JOIN pg_roles r ON r.rolname = $1 WHERE d.datname = $2),
			(SELECT has_database_privilege(r.oid, d.oid, 'CREATE') FROM pg_database d LEFT JOIN pg_roles r ON r.rolname = $1 WHERE d.datname = $2),
			EXISTS (SELECT FROM pg_database WHERE datname = $2),
			(SELECT pg_encoding_to_char(encoding) = 'UTF8' FROM pg_database WHERE datname = 'template1')`

	// The outbox's schema, as an empty name, and its tables that are not the role's.
	plannedForeignSQL = `
		SELECT ''::text FROM pg_namespace n LEFT JOIN pg_roles r ON r.rolname = $1 WHERE n.nspname = 'walhook' AND NOT coalesce(pg_has_role(r.oid, n.nspowner, 'USAGE'), false)
		UNION ALL
		SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_roles r ON r.rolname = $1
		WHERE n.nspname = 'walhook' AND c.relkind IN ('r', 'p') AND NOT coalesce(pg_has_role(r.oid, c.relowner, 'USAGE'), false)
		ORDER BY 1`
)

// PlanAccess examines the outbox's server as doctor does, for a role and a database that
// need not exist yet. It connects with the first of the URLs that the server accepts, and
// changes nothing.
func PlanAccess(ctx context.Context, urls []string, database, role string) (*AccessPlan, error) {
	s, err := openAny(ctx, urls)
	if refusesRole(err) {
		return &AccessPlan{Unseen: err, Role: doctor.CreateRole(here, role, false), Database: append(doctor.CreateDatabase(here, database, role, true),
			append(doctor.GrantConnect(here, database, role), grantCreate(database, role)...)...)}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the outbox: %w", err)
	}
	defer s.Close(ctx)
	a := &AccessPlan{}
	var inside, there, encoded bool
	var login, connect, create *bool
	if err := s.QueryRow(ctx, plannedSQL, role, database).Scan(&a.System, &inside, &login, &connect, &create, &there, &encoded); err != nil {
		return nil, fmt.Errorf("examine the outbox: %w", err)
	}
	may := func(right *bool) bool { return right != nil && *right }
	switch a.Exists = login != nil; {
	case !a.Exists:
		a.Role = doctor.CreateRole(here, role, false)
	case !*login:
		a.Role = doctor.AllowLogin(here, role)
	}
	for _, name := range volatile(s) {
		a.Settings = append(a.Settings, doctor.Configure(here, name, "on", false)...)
	}
	if !there {
		a.Database = doctor.CreateDatabase(here, database, role, encoded)
		return a, nil
	}
	if !may(connect) {
		a.Database = append(a.Database, doctor.GrantConnect(here, database, role)...)
	}
	if !may(create) {
		a.Database = append(a.Database, grantCreate(database, role)...)
	}
	if !inside {
		return a, nil
	}
	rows, err := s.Query(ctx, plannedForeignSQL, role)
	var names []string
	if err == nil {
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, fmt.Errorf("examine the outbox: %w", err)
	}
	for _, name := range names {
		if name == "" {
			a.Contents = append(a.Contents, ownSchema(role)...)
		} else {
			a.Contents = append(a.Contents, ownTable(name, role)...)
		}
	}
	return a, nil
}

// openAny connects with the first URL that the server accepts. Its error is the last one's.
func openAny(ctx context.Context, urls []string) (*doctor.Session, error) {
	var faults []error
	for _, url := range urls {
		e := examination{cfg: Config{URL: url}}
		conn, err := e.parse()
		if err != nil { // it may quote a password
			return nil, errors.New("not a PostgreSQL URL")
		}
		s, err := doctor.Open(ctx, conn, here)
		if err == nil {
			return s, nil
		}
		if faults = append(faults, pgsession.Reason(err)); !refusesRole(err) {
			break
		}
	}
	if len(faults) == 0 {
		return nil, errors.New("no URL")
	}
	return nil, faults[len(faults)-1]
}

// refusesRole reports whether a server answers that this role may not connect, or not to
// this database: one of them may not exist yet.
func refusesRole(err error) bool {
	switch pgsession.State(err) {
	case "28000", "28P01", "42501", "3D000": // invalid_authorization_specification, invalid_password, insufficient_privilege, invalid_catalog_name
		return true
	}
	return false
}
