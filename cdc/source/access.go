package source

import (
	"context"
	"fmt"

	"walhook/doctor"
)

// AccessPlan is what a DBA runs once, so that afterwards doctor finds no failure on the source
// and setup needs no right that the role lacks. Its statements are those that doctor and
// setup print.
type AccessPlan struct {
	System, Database string // the server's system identifier, and the database
	Exists           bool   // the role does, so it has a password already
	SlotOf           string // the other database that a slot of that name belongs to; "" for none

	// The statements, in the order in which they run. Those of Settings that say so take
	// effect with the server's next start.
	Role, Settings, Rights, Tables doctor.Steps

	Advice      doctor.Steps // settings that walhook works without
	Suggestions []Suggestion
	Warnings    []string
}

// plannedRoleSQL returns what a role may do, as no row if it does not exist.
const plannedRoleSQL = `
	SELECT rolcanlogin, rolreplication OR rolsuper, has_database_privilege(oid, current_database(), 'CONNECT')
	FROM pg_roles WHERE rolname = $1`

// A slot's name is the server's, not the database's.
const foreignSlotSQL = `
	SELECT coalesce((SELECT database::text FROM pg_replication_slots WHERE slot_name = $1::text AND database <> current_database()), '')`

// PlanAccess examines the source as doctor does, for a role that need not exist yet; ""
// is the one that connects. It connects as cfg says, as any role that may connect, and
// changes nothing.
func PlanAccess(ctx context.Context, cfg Config, role string) (*AccessPlan, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e := &examination{cfg: cfg.WithDefaults(), o: doctor.Options{}.WithDefaults(), r: doctor.NewReport(Checks()...), as: role}
	conn, err := e.cfg.parse()
	if err != nil {
		return nil, err
	}
	if e.s, err = doctor.Open(ctx, conn, onSource); err != nil {
		return nil, connectFault(err)
	}
	defer e.s.Close(ctx)
	if role == "" {
		if err := e.s.QueryRow(ctx, "SELECT current_user::text").Scan(&role); err != nil {
			return nil, fmt.Errorf("identify the role: %w", err)
		}
		e.as = role
	}
	a := &AccessPlan{}
	if err := e.s.QueryRow(ctx, sourceIDSQL).Scan(&a.System, &a.Database, nil); err != nil {
		return nil, fmt.Errorf("identify the source: %w", err)
	}
	if err := e.s.QueryRow(ctx, foreignSlotSQL, e.cfg.Slot).Scan(&a.SlotOf); err != nil {
		return nil, fmt.Errorf("look for slot %s: %w", e.cfg.Slot, err)
	}
	e.lookAtServer(ctx)
	if e.server.version < minServerVersion {
		return nil, e.server.faults()[0]
	}
	if e.senders >= e.server.senders && e.server.senders > 0 {
		e.lackSenders()
	}
	e.server.role = role
	if err := e.lookAtRole(ctx, a); err != nil {
		return nil, err
	}
	e.lookAtTables(ctx)
	e.walLimit(e.s.Number("max_slot_wal_keep_size"))
	e.idleLimit(e.s.Number("idle_replication_slot_timeout"))
	e.synchronousStandby(ctx)
	return a, e.collect(ctx, a)
}

// lookAtRole plans the role.
func (e *examination) lookAtRole(ctx context.Context, a *AccessPlan) error {
	var login, replication, connect bool
	rows, err := e.s.Query(ctx, plannedRoleSQL, e.as)
	if err == nil {
		for a.Exists = false; rows.Next(); a.Exists = true {
			if err = rows.Scan(&login, &replication, &connect); err != nil {
				break
			}
		}
		rows.Close()
		err = rows.Err()
	}
	if err != nil {
		return fmt.Errorf("look for role %s: %w", e.as, err)
	}
	switch {
	case !a.Exists:
		a.Role = doctor.CreateRole(onSource, e.as, true)
	default:
		if !login {
			a.Role = append(a.Role, doctor.AllowLogin(onSource, e.as)...)
		}
		if !replication {
			a.Role = append(a.Role, doctor.AllowReplication(onSource, e.as)...)
		}
	}
	if !connect {
		a.Rights = append(a.Rights, doctor.GrantConnect(onSource, e.s.Database, e.as)...)
	}
	return nil
}

// collect takes the statements of what was found.
func (e *examination) collect(ctx context.Context, a *AccessPlan) error {
	fixes := func(ids ...string) (steps doctor.Steps) {
		for _, id := range ids {
			if f := e.r.Finding(id); f.Status == doctor.Failed {
				steps = append(steps, f.Fix...)
			}
		}
		return steps
	}
	a.Settings = fixes(checkWALLevel, checkSlots, checkSenders, checkIdleLimit, checkSynchronous)
	a.Rights = append(a.Rights, fixes(checkSelect, checkRowSecurity)...)
	for _, id := range []string{checkWALLimit, checkIdleLimit} {
		if f := e.r.Finding(id); f.Status == doctor.Warning {
			a.Advice = append(a.Advice, f.Fix...)
		}
	}
	// What no statement of a DBA's should decide alone, and queries that failed.
	for _, id := range []string{checkVersion, checkTables, checkUnlogged, checkKeys, checkColumns, checkFields} {
		if f := e.r.Finding(id); f.Bad() && f.Evidence != e.noURL {
			a.Warnings = append(a.Warnings, f.Evidence)
		}
	}
	for _, id := range []string{checkWALLevel, checkSlots, checkSelect, checkSynchronous} {
		if f := e.r.Finding(id); f.Status == doctor.Warning {
			return fmt.Errorf("examine the source: %s: %s", id, f.Evidence)
		}
	}
	if e.noURL != "" {
		column := urlColumn(e.cfg.Catalog.Account)
		column[0].Note = "the accounts' URLs; if another column holds them, name it in the catalog file as account.url and leave this out"
		a.Tables = append(a.Tables, column...)
	}
	p := &Plan{}
	p.take(e.tables)
	if err := p.statements(ctx, e.s.Conn, e.cfg); err != nil {
		return err
	}
	for _, s := range p.Statements {
		a.Tables = append(a.Tables, s.step())
	}
	a.Suggestions, a.Warnings = p.Suggestions, append(a.Warnings, p.Warnings...)
	return nil
}
