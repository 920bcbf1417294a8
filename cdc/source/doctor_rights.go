package source

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
)

const (
	mayCreateSQL = `
		SELECT has_database_privilege(current_database(), 'CREATE'),
			coalesce((SELECT pg_has_role(pubowner, 'USAGE') FROM pg_publication WHERE pubname = $1), true)`

	foreignSQL = `SELECT oid FROM pg_class WHERE oid = ANY ($1) AND NOT pg_has_role(relowner, 'USAGE')`
)

// OptionalNote says what walhook lacks without an optional statement.
const OptionalNote = "optional: without it deletes and unchanged large values carry less"

// lookAtRights checks whether the role may run the statements of setup, and names all of
// them as a dry run of setup does. Of a published table the replica identity has a check of
// its own, which names an optional statement. If the source needs none, it needs no right.
func (e *examination) lookAtRights(ctx context.Context) {
	plan := &Plan{}
	for _, t := range e.tables {
		if t.exists && t.logged {
			plan.tables = append(plan.tables, t.table)
		}
	}
	plan.planIdentity()
	if err := plan.planPublication(ctx, e.s.Conn, e.cfg); err != nil {
		e.s.Unseen(e.r, err, checkRights)
		return
	}
	var steps doctor.Steps
	optional := map[uint32]bool{}
	for _, s := range plan.Statements {
		step := s.step()
		if s.Optional {
			if e.looksAtIdentity() && e.isPublished(s.table) {
				continue
			}
			step.Note, optional[s.table] = OptionalNote, true
		}
		steps = append(steps, step)
	}
	needed, extra := len(steps)-len(optional), doctor.Count(len(optional), "optional statement")
	if len(steps) == 0 {
		e.r.OK(checkRights, "publication and tables need no change")
		return
	}
	lacks, missed, err := e.lackingRights(ctx, optional)
	all := doctor.Count(needed, "statement")
	switch {
	case needed == 0:
		lacks, all = nil, extra
	case len(optional) > 0:
		all += " and " + extra
	}
	switch {
	case err != nil:
		e.s.Unseen(e.r, err, checkRights)
	case len(lacks) > 0:
		for _, one := range missed {
			if !slices.Contains(lacks, one) {
				lacks = append(lacks, one)
			}
		}
		e.r.Fail(checkRights, steps, "setup must run %s on the source, and role %s may not: it lacks %s", all, e.server.role, doctor.List(lacks, doctor.ListMost))
	case len(missed) > 0:
		e.r.Warn(checkRights, steps, "setup would run %s on the source, and role %s may not run every optional one: it lacks %s", all, e.server.role, doctor.List(missed, doctor.ListMost))
	default:
		e.r.OK(checkRights, "role %s may run the %s of setup", e.server.role, all)
	}
}

// isPublished reports whether the changes of a table with this OID are published.
func (e *examination) isPublished(oid uint32) bool {
	for _, t := range e.tables {
		for _, l := range t.identities {
			if l.OID == oid && (l.Child && l.Published || !l.Child && t.published) {
				return true
			}
		}
	}
	return false
}

// lackingRights returns the rights that the role lacks for what setup must run, and those
// that it lacks for the optional statements about the given tables.
func (e *examination) lackingRights(ctx context.Context, optional map[uint32]bool) (lacks, missed []string, err error) {
	var create, publication bool
	if err := e.s.QueryRow(ctx, mayCreateSQL, e.cfg.Publication).Scan(&create, &publication); err != nil {
		return nil, nil, err
	}
	if !create {
		lacks = append(lacks, "CREATE on database "+schemas.QuoteIdent(e.s.Database))
	}
	if !publication {
		lacks = append(lacks, "ownership of publication "+schemas.QuoteIdent(e.cfg.Publication))
	}
	var all []uint32
	for _, t := range e.tables {
		all = append(all, t.oid)
		for _, l := range t.identities {
			all = append(all, l.OID)
		}
	}
	rows, err := e.s.Query(ctx, foreignSQL, all)
	if err != nil {
		return nil, nil, err
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	foreign := map[uint32]bool{}
	for _, oid := range list {
		foreign[oid] = true
	}
	for _, t := range e.tables {
		if !t.exists || !t.logged {
			continue
		}
		updatable := !slices.ContainsFunc(t.identities, func(l identityTable) bool { return !l.Updatable })
		if foreign[t.oid] && (!t.published || !updatable) {
			lacks = append(lacks, "ownership of "+t.name.String())
		}
		for _, l := range t.identities {
			if optional[l.OID] && foreign[l.OID] {
				missed = append(missed, "ownership of "+l.name().String())
			}
		}
	}
	return lacks, missed, err
}
