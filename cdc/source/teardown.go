package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/schemas"
)

// TeardownPlan holds the steps that remove walhook from a source.
type TeardownPlan struct {
	// Steps of Apply, in order: a published table needs its replica identity until it
	// is not published.
	Steps []TeardownStep
	// Left are changes of setup that teardown does not undo, with the reasons.
	Left []string

	cfg Config
}

// TeardownStep drops one object, or restores its former state.
type TeardownStep struct {
	What string // for display
	SQL  string

	changes []int64 // that it undoes
	needs   string
	// unpublishes says that it drops the publication. unpublished says that the
	// table's updates fail after the step if the publication still holds it.
	unpublishes, unpublished bool
}

const (
	slotActiveSQL = `SELECT active FROM pg_catalog.pg_replication_slots WHERE slot_name = $1`

	// The current replica identity of a table, whether its updates work with DEFAULT,
	// and the other publications that hold it.
	undoneIdentitySQL = `
		SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), ` + identityTextSQL + `,
			EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indisprimary AND i.indimmediate),
			coalesce((SELECT pg_catalog.string_agg(p.pubname::text, ', ' ORDER BY p.pubname) FROM pg_catalog.pg_publication p
				WHERE p.oid <> $2 AND (p.pubupdate OR p.pubdelete) AND (p.puballtables OR EXISTS (
					SELECT FROM pg_catalog.pg_publication_tables t
					WHERE t.pubname = p.pubname AND t.schemaname = n.nspname AND t.tablename = c.relname)
					OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid
						AND (r.prrelid = c.oid OR r.prrelid IN (SELECT a.relid FROM pg_catalog.pg_partition_ancestors(c.oid) a))))), '')
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = $1 AND c.relkind IN ('r', 'p')`

	// The index of a replica identity, under its current name: the same index, or one
	// with its name, or with its columns.
	indexNowSQL = `
		SELECT pg_catalog.quote_ident(x.relname) FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
		WHERE i.indrelid = $1 AND i.indisvalid AND i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
			AND (i.indexrelid = $2 OR pg_catalog.quote_ident(x.relname) = $3 AND $4 IN ('', pg_catalog.array_to_string(i.indkey::int2[], ','))
				OR pg_catalog.array_to_string(i.indkey::int2[], ',') = $4)
		ORDER BY i.indexrelid = $2 DESC, pg_catalog.quote_ident(x.relname) = $3 DESC, x.relname LIMIT 1`

	publicationNamedSQL = `SELECT coalesce((SELECT pubname::text FROM pg_catalog.pg_publication WHERE oid = $1), '')`

	databaseThereSQL = `SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)`

	// The replica identity of a table by its name, as in SQL.
	identityNamedSQL = `
		SELECT c.relreplident::text FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind IN ('r', 'p')`
)

// PlanTeardown finds what to undo: the slot, the publication, and those replica
// identities among the changes of setup that nobody changed since. publication is the
// OID of the publication that was set up; 0 if unknown. It changes nothing. A slot that
// a session reads is a [*Fault].
func PlanTeardown(ctx context.Context, cfg Config, changes []schemas.SourceChange, publication uint32) (*TeardownPlan, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.WithDefaults()
	conn, err := cfg.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer CloseConn(ctx, conn)
	p := &TeardownPlan{cfg: cfg}
	here, elsewhere, err := divide(ctx, conn, changes)
	if err != nil {
		return nil, err
	}
	if err := p.planSlot(ctx, conn); err != nil {
		return nil, err
	}
	ours, err := p.planPublication(ctx, conn, here, publication)
	if err != nil {
		return nil, err
	}
	if err := p.planIdentities(ctx, conn, here, ours); err != nil {
		return nil, err
	}
	return p, p.leaveElsewhere(ctx, conn, elsewhere)
}

// divide finds the changes of this source, whatever its database's current name, and
// those that may belong to it: of a database of this name on another server, or, if the
// OID was not noted, of one that does not exist any more.
func divide(ctx context.Context, conn *pgx.Conn, changes []schemas.SourceChange) (here, elsewhere []schemas.SourceChange, err error) {
	var now schemas.SourceChange
	if err := conn.QueryRow(ctx, sourceIDSQL).Scan(&now.SystemID, &now.Database, &now.DatabaseOID); err != nil {
		return nil, nil, fmt.Errorf("identify the source: %w", err)
	}
	for _, c := range changes {
		switch sameServer := c.SystemID == now.SystemID; {
		case sameServer && (c.DatabaseOID == now.DatabaseOID || c.DatabaseOID == 0 && c.Database == now.Database):
			here = append(here, c)
		case !sameServer && c.Database == now.Database:
			elsewhere = append(elsewhere, c)
		case sameServer && c.DatabaseOID == 0:
			var there bool
			if err := conn.QueryRow(ctx, databaseThereSQL, c.Database).Scan(&there); err != nil {
				return nil, nil, fmt.Errorf("find database %s: %w", c.Database, err)
			}
			if !there {
				elsewhere = append(elsewhere, c)
			}
		}
	}
	return here, elsewhere, nil
}

func (p *TeardownPlan) planSlot(ctx context.Context, conn *pgx.Conn) error {
	var active bool
	err := conn.QueryRow(ctx, slotActiveSQL, p.cfg.Slot).Scan(&active)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("read slot %s: %w", p.cfg.Slot, err)
	case active:
		return &Fault{Problem: fmt.Sprintf("slot %s is in use", p.cfg.Slot), Fix: "stop the walhook that reads it first"}
	}
	p.Steps = append(p.Steps, TeardownStep{What: "slot " + p.cfg.Slot, needs: "REPLICATION",
		SQL: "SELECT pg_catalog.pg_drop_replication_slot(" + quoteLiteral(p.cfg.Slot) + ")"})
	return nil
}

// planPublication finds the publication, which may have been renamed, and returns its
// OID; 0 for none.
func (p *TeardownPlan) planPublication(ctx context.Context, conn *pgx.Conn, changes []schemas.SourceChange, stored uint32) (uint32, error) {
	var oid uint32
	if err := conn.QueryRow(ctx, publicationOIDSQL, p.cfg.Publication).Scan(&oid); err != nil {
		return 0, fmt.Errorf("read publication %s: %w", p.cfg.Publication, err)
	}
	name := p.cfg.Publication
	step := TeardownStep{needs: "ownership of the publication", unpublishes: true}
	for _, c := range changes {
		if c.Kind == schemas.PublicationChange && c.Name == p.cfg.Publication {
			step.changes = append(step.changes, c.ID)
		}
	}
	if made := len(step.changes) > 0; made && stored != 0 && stored != oid {
		var renamed string
		if err := conn.QueryRow(ctx, publicationNamedSQL, stored).Scan(&renamed); err != nil {
			return 0, fmt.Errorf("read publication %d: %w", stored, err)
		}
		if renamed != "" && oid != 0 {
			p.Left = append(p.Left, fmt.Sprintf("publication %s: somebody created it later; setup's publication is now %s", name, renamed))
		}
		if renamed != "" {
			oid, name = stored, renamed
		}
	}
	if oid == 0 {
		if len(step.changes) > 0 {
			p.Left = append(p.Left, fmt.Sprintf("publication %s, which setup created, does not exist; if somebody renamed it, drop it under its new name", name))
		}
		return 0, nil
	}
	step.What, step.SQL = "publication "+name, "DROP PUBLICATION "+schemas.QuoteIdent(name)
	p.Steps = append(p.Steps, step)
	return oid, nil
}

// planIdentities undoes the changes of each table from the last one back, as far as the
// current state is what walhook made.
func (p *TeardownPlan) planIdentities(ctx context.Context, conn *pgx.Conn, changes []schemas.SourceChange, publication uint32) error {
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
		if err := p.planIdentity(ctx, conn, table, of[table], publication); err != nil {
			return err
		}
	}
	return nil
}

func (p *TeardownPlan) planIdentity(ctx context.Context, conn *pgx.Conn, table uint32, changes []schemas.SourceChange, publication uint32) error {
	var name, now, others string
	var keyed bool
	err := conn.QueryRow(ctx, undoneIdentitySQL, table, publication).Scan(&name, &now, &keyed, &others)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // dropped with its table
	}
	if err != nil {
		return fmt.Errorf("read the replica identity of table %d: %w", table, err)
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
	indexThere := true
	if index := indexOf(to); index.name != "" {
		err := conn.QueryRow(ctx, indexNowSQL, table, index.oid, index.name, index.columns).Scan(&index.name)
		if indexThere = !errors.Is(err, pgx.ErrNoRows); err != nil && indexThere {
			return fmt.Errorf("look for index %s: %w", index.name, err)
		}
		to = "i " + index.name
	}
	step.SQL = identitySQL(name, to)
	step.unpublished = to == "n" || to == "d" && !keyed
	switch {
	case len(step.changes) == 0:
		left("somebody has changed it since")
	case to == now:
		// Somebody has restored it.
	case !indexThere:
		left("it used index %s, which no longer exists", indexOf(to).name)
	case others != "" && step.unpublished:
		left("publication %s contains the table: without the identity its updates and deletes would fail", others)
	case others != "":
		left("publication %s contains the table and may need the identity; otherwise run: %s", others, step.SQL)
	default:
		step.What = step.SQL
		p.Steps = append(p.Steps, step)
	}
	return nil
}

// leaveElsewhere lists the changes of another server, as before pg_upgrade or a restore,
// or of a database that does not exist any more: the tables may have other OIDs here.
func (p *TeardownPlan) leaveElsewhere(ctx context.Context, conn *pgx.Conn, changes []schemas.SourceChange) error {
	first := map[string]schemas.SourceChange{}
	var names []string
	for _, c := range changes {
		if _, known := first[c.Name]; c.Kind == schemas.IdentityChange && !known {
			first[c.Name], names = c, append(names, c.Name)
		}
	}
	for _, name := range names {
		var now string
		err := conn.QueryRow(ctx, identityNamedSQL, name).Scan(&now)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && now != string(schemas.IdentityFull) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the replica identity of %s: %w", name, err)
		}
		p.Left = append(p.Left, fmt.Sprintf("the replica identity of %s: walhook changed it when the source was another server or database (system %s, database %s), which may not be this one; if it is: %s",
			name, first[name].SystemID, first[name].Database, identitySQL(name, first[name].Before)))
	}
	return nil
}

// Apply runs the steps, calls done after each, and notes in kept what is undone. A step
// that the server refuses is a [*Fault] with its statement; Apply still runs the later
// ones. While the publication exists, no table loses the replica identity that its
// updates need.
func (p *TeardownPlan) Apply(ctx context.Context, kept Changes, done func(TeardownStep)) error {
	conn, err := p.cfg.connect(ctx)
	if err != nil {
		return err
	}
	defer CloseConn(ctx, conn)
	if _, err := conn.Exec(ctx, lockTimeoutSQL); err != nil {
		return fmt.Errorf("set lock_timeout: %w", err)
	}
	var faults []error
	published := false
	for _, step := range p.Steps {
		if published && step.unpublished {
			faults = append(faults, &Fault{Problem: fmt.Sprintf("not run: %q; the table is still published, and its updates would fail", step.SQL),
				Fix: "drop the publication, then run teardown again"})
			continue
		}
		if _, err := conn.Exec(ctx, step.SQL); err != nil {
			fault, refused := step.refused(err)
			if !refused {
				return errors.Join(append(faults, fmt.Errorf("run %q: %w", step.SQL, err))...)
			}
			faults = append(faults, fault)
			published = published || step.unpublishes
			continue
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

// refused makes the [Fault] of a step that the server refuses; false if the server does
// not answer any more.
func (s TeardownStep) refused(err error) (*Fault, bool) {
	switch code := sqlState(err); {
	case code == codeInsufficientRights:
		return &Fault{Problem: fmt.Sprintf("the role may not run %q", s.SQL), Fix: "it needs " + s.needs + ": run it as its owner", Err: err}, true
	case code == codeLockNotAvailable:
		return &Fault{Problem: fmt.Sprintf("cannot run %q: a running transaction locks the table", s.SQL), Fix: "run teardown again when it has ended", Err: err}, true
	case code == "" || code[:2] == "57" || code[:2] == "08": // the server shuts down or the connection is lost
		return nil, false
	}
	return &Fault{Problem: fmt.Sprintf("the server refuses %q", s.SQL), Fix: "fix the cause, run it by hand, then run teardown again", Err: err}, true
}

// Changes stores what walhook changes on a source, so that [PlanTeardown] can undo it.
type Changes interface {
	// KeepSourceChange notes a change before it is made.
	KeepSourceChange(ctx context.Context, c schemas.SourceChange) (id int64, err error)
	// SourceChangeUndone notes that a change was undone, or not made.
	SourceChangeUndone(ctx context.Context, id int64) error
}

const (
	// Every role that may connect may call these functions.
	sourceIDSQL = `
		SELECT system_identifier::text, d.datname::text, d.oid FROM pg_catalog.pg_control_system(), pg_catalog.pg_database d
		WHERE d.datname = pg_catalog.current_database()`

	// The replica identity of the table of row "c" in the stored form: of an index its
	// OID, its columns and its name. A rename keeps the first two, a REINDEX the last
	// two.
	identityTextSQL = `CASE c.relreplident WHEN 'i' THEN 'i ' || coalesce((
		SELECT i.indexrelid || ':' || pg_catalog.array_to_string(i.indkey::int2[], ',') || ' ' || pg_catalog.quote_ident(x.relname)
		FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
		WHERE i.indrelid = c.oid AND i.indisreplident), '') ELSE c.relreplident::text END`

	identityOfSQL = `
		SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), ` + identityTextSQL + `
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1`
)

// execer runs a statement.
type execer interface {
	querier
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// changeSource notes a change of the source and then runs its statement, so that every
// change is known. If the statement fails, it notes that too.
func changeSource(ctx context.Context, conn execer, kept Changes, sql string, change schemas.SourceChange) error {
	if err := conn.QueryRow(ctx, sourceIDSQL).Scan(&change.SystemID, &change.Database, &change.DatabaseOID); err != nil {
		return fmt.Errorf("identify the source: %w", err)
	}
	id, err := kept.KeepSourceChange(ctx, change)
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, sql); err != nil {
		return errors.Join(err, kept.SourceChangeUndone(ctx, id))
	}
	return nil
}

// setIdentity sets a table's replica identity ('f', 'd' or 'n'), and notes the former
// one. The error is the server's.
func setIdentity(ctx context.Context, conn execer, kept Changes, oid uint32, to schemas.ReplicaIdentity) error {
	var name, before string
	err := conn.QueryRow(ctx, identityOfSQL, oid).Scan(&name, &before)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && before == string(to) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the replica identity of table %d: %w", oid, err)
	}
	return changeSource(ctx, conn, kept, identitySQL(name, string(to)), schemas.SourceChange{
		Kind: schemas.IdentityChange, Relation: oid, Name: name, Before: before, After: string(to),
	})
}

// identitySQL is the statement that sets a table's replica identity, in the stored form.
func identitySQL(table, identity string) string {
	kind, _, _ := strings.Cut(identity, " ")
	what := map[string]string{"d": "DEFAULT", "f": "FULL", "n": "NOTHING", "i": "USING INDEX " + indexOf(identity).name}[kind]
	return "ALTER TABLE " + table + " REPLICA IDENTITY " + what
}

// identityIndex is the index of a replica identity in the stored form; zero for none.
// Older outboxes hold the name alone.
type identityIndex struct {
	oid     uint32
	columns string // their numbers, separated by commas
	name    string // quoted as in SQL
}

func indexOf(identity string) (index identityIndex) {
	rest, ok := strings.CutPrefix(identity, "i ")
	if !ok {
		return index
	}
	index.name = rest
	where, name, _ := strings.Cut(rest, " ")
	oid, columns, found := strings.Cut(where, ":")
	if n, err := strconv.ParseUint(oid, 10, 32); found && err == nil { // a name never begins with a digit
		index.oid, index.columns, index.name = uint32(n), columns, name
	}
	return index
}
