package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

// TeardownPlan is what taking walhook out of use does to a source.
type TeardownPlan struct {
	// Steps are what Apply does, in order: a published table needs its identity
	// as long as it is published.
	Steps []TeardownStep
	// Left is what setup changed and nobody undoes, with the reason.
	Left []string

	cfg Config
}

// TeardownStep is one thing that is dropped, or set back to what it was.
type TeardownStep struct {
	What string // for people
	SQL  string

	changes []int64 // that are undone with it
	needs   string
}

const (
	slotActiveSQL = `SELECT active FROM pg_catalog.pg_replication_slots WHERE slot_name = $1`

	// The identity of a table as it is now, whether DEFAULT would let it be
	// updated, and the publications besides ours that hold it.
	undoneIdentitySQL = `
		SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), ` + identityTextSQL + `,
			EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indisprimary AND i.indimmediate),
			coalesce((SELECT pg_catalog.string_agg(p.pubname::text, ', ' ORDER BY p.pubname) FROM pg_catalog.pg_publication p
				WHERE p.pubname <> $2 AND (p.pubupdate OR p.pubdelete) AND (p.puballtables OR EXISTS (
					SELECT FROM pg_catalog.pg_publication_tables t
					WHERE t.pubname = p.pubname AND t.schemaname = n.nspname AND t.tablename = c.relname)
					OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid
						AND (r.prrelid = c.oid OR r.prrelid IN (SELECT a.relid FROM pg_catalog.pg_partition_ancestors(c.oid) a))))), '')
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = $1 AND c.relkind IN ('r', 'p')`

	indexThereSQL = `
		SELECT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
			WHERE i.indrelid = $1 AND pg_catalog.quote_ident(x.relname) = $2 AND i.indisvalid AND i.indisunique AND i.indimmediate AND i.indpred IS NULL)`
)

// PlanTeardown looks at what there is to undo: the slot, the publication, and
// of changes, which are what setup did to the source, the replica identities
// that nobody changed since. It changes nothing. A slot that somebody reads is
// a [*Fault].
func PlanTeardown(ctx context.Context, cfg Config, changes []schemas.SourceChange) (*TeardownPlan, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	conn, err := cfg.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer closeConn(ctx, conn)
	p := &TeardownPlan{cfg: cfg}
	var system, database string
	if err := conn.QueryRow(ctx, sourceIDSQL).Scan(&system, &database); err != nil {
		return nil, fmt.Errorf("ask which source this is: %w", err)
	}
	changes = slices.DeleteFunc(slices.Clone(changes), func(c schemas.SourceChange) bool {
		return c.SystemID != system || c.Database != database
	})
	if err := p.planSlot(ctx, conn); err != nil {
		return nil, err
	}
	if err := p.planPublication(ctx, conn, changes); err != nil {
		return nil, err
	}
	return p, p.planIdentities(ctx, conn, changes)
}

func (p *TeardownPlan) planSlot(ctx context.Context, conn *pgx.Conn) error {
	var active bool
	err := conn.QueryRow(ctx, slotActiveSQL, p.cfg.Slot).Scan(&active)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("look at slot %s: %w", p.cfg.Slot, err)
	case active:
		return &Fault{Problem: fmt.Sprintf("slot %s is in use", p.cfg.Slot), Mend: "stop the walhook that reads it first"}
	}
	p.Steps = append(p.Steps, TeardownStep{What: "slot " + p.cfg.Slot, needs: "REPLICATION",
		SQL: "SELECT pg_catalog.pg_drop_replication_slot(" + quoteLiteral(p.cfg.Slot) + ")"})
	return nil
}

func (p *TeardownPlan) planPublication(ctx context.Context, conn *pgx.Conn, changes []schemas.SourceChange) error {
	var oid uint32
	if err := conn.QueryRow(ctx, publicationOIDSQL, p.cfg.Publication).Scan(&oid); err != nil {
		return fmt.Errorf("look at publication %s: %w", p.cfg.Publication, err)
	}
	if oid == 0 {
		return nil
	}
	step := TeardownStep{What: "publication " + p.cfg.Publication, SQL: "DROP PUBLICATION " + schemas.QuoteIdent(p.cfg.Publication),
		needs: "ownership of the publication"}
	for _, c := range changes {
		if c.Kind == schemas.PublicationChange && c.Name == p.cfg.Publication {
			step.changes = append(step.changes, c.ID)
		}
	}
	p.Steps = append(p.Steps, step)
	return nil
}

// planIdentities goes back through the changes of each table, as far as what
// is there is what walhook made.
func (p *TeardownPlan) planIdentities(ctx context.Context, conn *pgx.Conn, changes []schemas.SourceChange) error {
	var tables []uint32
	of := map[uint32][]schemas.SourceChange{}
	for _, c := range changes {
		if c.Kind != schemas.IdentityChange {
			continue
		}
		if of[c.Relation] == nil {
			tables = append(tables, c.Relation)
		}
		of[c.Relation] = append(of[c.Relation], c)
	}
	for _, table := range tables {
		if err := p.planIdentity(ctx, conn, table, of[table]); err != nil {
			return err
		}
	}
	return nil
}

func (p *TeardownPlan) planIdentity(ctx context.Context, conn *pgx.Conn, table uint32, changes []schemas.SourceChange) error {
	var name, now, others string
	var keyed bool
	err := conn.QueryRow(ctx, undoneIdentitySQL, table, p.cfg.Publication).Scan(&name, &now, &keyed, &others)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // gone with its table
	}
	if err != nil {
		return fmt.Errorf("look at the replica identity of table %d: %w", table, err)
	}
	to, step := now, TeardownStep{needs: "ownership of the table"}
	for _, c := range slices.Backward(changes) {
		if c.After != to {
			break
		}
		to = c.Before
		step.changes = append(step.changes, c.ID)
	}
	left := func(format string, args ...any) {
		p.Left = append(p.Left, fmt.Sprintf("the replica identity of %s: ", name)+fmt.Sprintf(format, args...))
	}
	step.SQL = identitySQL(name, to)
	index, byIndex := indexOf(to)
	indexThere := true
	if byIndex {
		if err := conn.QueryRow(ctx, indexThereSQL, table, index).Scan(&indexThere); err != nil {
			return fmt.Errorf("look for index %s: %w", index, err)
		}
	}
	switch {
	case len(step.changes) == 0:
		left("somebody changed it since")
	case to == now:
		// Back at what it was, by whoever.
	case !indexThere:
		left("it was by index %s, which is no more", index)
	case others != "" && (to == "n" || to == "d" && !keyed):
		left("publication %s holds the table: without it, its updates and deletes would fail", others)
	case others != "":
		left("publication %s holds the table and may need it; otherwise: %s", others, step.SQL)
	default:
		step.What = step.SQL
		p.Steps = append(p.Steps, step)
	}
	return nil
}

// indexOf is the index of a replica identity as it is kept.
func indexOf(identity string) (index string, ok bool) {
	if len(identity) > 2 && identity[0] == 'i' {
		return identity[2:], true
	}
	return "", false
}

// Apply does what is planned, and tells done of each step as it is done. kept
// learns what was undone. A step that the role has no right to is a [*Fault]
// that names its statement; those after it are still tried.
func (p *TeardownPlan) Apply(ctx context.Context, kept SourceChanges, done func(TeardownStep)) error {
	conn, err := p.cfg.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	if _, err := conn.Exec(ctx, lockTimeoutSQL); err != nil {
		return fmt.Errorf("set lock_timeout: %w", err)
	}
	var faults []error
	for _, step := range p.Steps {
		_, err := conn.Exec(ctx, step.SQL)
		switch {
		case sqlState(err) == codeInsufficientRights:
			faults = append(faults, &Fault{Problem: fmt.Sprintf("the role may not run %q", step.SQL), Mend: "it needs " + step.needs + ": run it as its owner", Err: err})
			continue
		case sqlState(err) == codeLockNotAvailable:
			faults = append(faults, &Fault{Problem: fmt.Sprintf("cannot run %q: a running transaction holds the table", step.SQL), Mend: "run teardown again when it is over", Err: err})
			continue
		case err != nil:
			return errors.Join(append(faults, fmt.Errorf("run %q: %w", step.SQL, err))...)
		}
		done(step)
		for _, id := range step.changes {
			if err := kept.SourceChangeUndone(ctx, id); err != nil {
				faults = append(faults, err)
			}
		}
	}
	return errors.Join(faults...)
}
