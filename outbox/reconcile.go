package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/internal/pgsession"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// After a gap a snapshot starts over, and this compares it with the ledger. What endpoints
// missed goes into walhook.missed, in the transaction that stores the snapshot; missed.go
// appends it. So an interrupted setup starts over and ends the same.

const (
	// A snapshot that was interrupted began on a source that may have been another one.
	otherSourceSQL = `
		UPDATE walhook.gap SET other_history = true
		WHERE accepted_at IS NULL AND EXISTS (SELECT FROM walhook.source WHERE state = 'snapshot' AND (system_id, timeline) <> ($1, $2))`

	reconcileGapSQL = `
		WITH newest AS (SELECT id FROM walhook.gap WHERE accepted_at IS NULL ORDER BY id DESC LIMIT 1)
		UPDATE walhook.gap g SET reconcile = $1, other_history = g.other_history OR $2 FROM newest n WHERE g.id = n.id`

	// Somebody starts over where nobody has found a gap, or nobody recorded it.
	startOverSQL = `
		INSERT INTO walhook.gap (from_lsn, to_lsn, reason, reconcile, other_history)
		SELECT p.flush_lsn, nullif($3::text, '0/0')::pg_lsn, $4, $1, $2 FROM walhook.position p ORDER BY p.id DESC LIMIT 1`
)

// StartOver is [Publisher.BeginSnapshot] of a source that was read before. It stores with
// that, whether endpoints will be told what they missed.
func (p *Publisher) StartOver(ctx context.Context, source schemas.Source, over schemas.StartOver) error {
	err := pgx.BeginFunc(ctx, p.store.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, otherSourceSQL, source.SystemID, source.Timeline); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, reconcileGapSQL, over.Reconcile, over.Gap.OtherHistory)
		if err == nil && tag.RowsAffected() == 0 {
			_, err = tx.Exec(ctx, startOverSQL, over.Reconcile, over.Gap.OtherHistory, over.Gap.To.String(), over.Gap.Reason)
		}
		if err != nil {
			return err
		}
		return beginSnapshotTx(ctx, tx, source)
	})
	if err != nil {
		return fmt.Errorf("record the start of the snapshot after a gap: %w", err)
	}
	return nil
}

const (
	// An older walhook may have begun it.
	openGapSQL = `
		SELECT g.id, g.other_history, coalesce(s.visible_xmin, 0), coalesce(s.visible_event, 0),
			EXISTS (SELECT FROM walhook.gap lost WHERE lost.accepted_at IS NULL AND starts_with(lost.reason, $1))
		FROM walhook.gap g, walhook.source s
		WHERE g.accepted_at IS NULL AND coalesce(g.reconcile, true) AND EXISTS (SELECT FROM walhook.position)
		ORDER BY g.id DESC LIMIT 1`

	// They exist only inside the transaction, as snapshotTableSQL.
	snapshotOwnerSQL = `
		CREATE UNLOGGED TABLE walhook.snapshot_owner (schema text NOT NULL, key text NOT NULL, account text, changed boolean NOT NULL, parent text, hidden boolean NOT NULL, several boolean NOT NULL DEFAULT false)`

	snapshotParentSQL = `
		CREATE UNLOGGED TABLE walhook.snapshot_parent AS SELECT id, parent FROM walhook.account WHERE ended_in IS NULL`

	ledgerSQL = `SELECT schema FROM walhook.ledger`
)

// reconciliation compares a snapshot after a gap with what was known. It is a
// [catalog.GapSink].
type reconciliation struct {
	w       *SnapshotWriter
	gap     int64
	event   int64 // the last events of records that changed before the gap have at least this id
	all     bool  // the rows' ages mean nothing
	lost    bool  // the outbox lost what it had stored last
	since   schemas.Visible
	former  *catalog.Catalog // nil for unknown
	catalog *catalog.Catalog
	ledgers []string               // schemas that were complete
	tables  map[string]formerTable // by the name that they had last

	rows [][]any
}

// openReconciliation returns what the open gap asks for; nil for nothing.
func (p *Publisher) openReconciliation(ctx context.Context, tx pgx.Tx, w *SnapshotWriter) (*reconciliation, error) {
	r := &reconciliation{w: w, catalog: p.given}
	var xmin int64
	err := tx.QueryRow(ctx, openGapSQL, schemas.GapOutboxLacks).Scan(&r.gap, &r.all, &xmin, &r.event, &r.lost)
	if isNoRows(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r.since.Xmin = uint64(xmin)
	if r.ledgers, err = collect[string](tx.Query(ctx, ledgerSQL)); err != nil {
		return nil, err
	}
	if r.former, err = p.store.CatalogInForce(ctx); err != nil {
		return nil, err
	}
	if r.tables, err = formerTables(ctx, tx); err != nil {
		return nil, err
	}
	for _, sql := range []string{snapshotOwnerSQL, snapshotParentSQL} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Compare takes what the snapshot sees.
func (w *SnapshotWriter) Compare(_ context.Context, visible schemas.Visible) (catalog.GapSink, error) {
	w.visible = visible
	if w.gap == nil {
		return nil, nil
	}
	r := w.gap
	if !r.all && !schemas.Comparable(r.since.Xmin, visible.Xmax) {
		r.all = true
	}
	r.since.Xmax = visible.Xmax
	if r.all {
		w.store.log.Warn("the rows do not show which changed in the gap: every record is sent as an update", zap.Int64("gap", r.gap))
	}
	return r, nil
}

// Record takes a record of the snapshot.
func (r *reconciliation) Record(ctx context.Context, one catalog.Record) error {
	w := r.w
	account, key, parent := schemas.Storable(one.Account), schemas.Storable(one.Key), schemas.Storable(one.Parent)
	if w.again(one.Schema, key) {
		return nil // which of the two it is cannot be told
	}
	if len(account) > schemas.MaxAccountBytes {
		account = "" // as a change of the record would find
	}
	row := []any{one.Schema, w.store.encoding.text(key), account, r.all || schemas.ChangedSince(one.Xmin, r.since.Xmin, r.since.Xmax), nil, one.Hidden}
	if one.Orphan {
		row[2], row[4] = nil, w.store.encoding.text(parent)
	}
	r.rows = append(r.rows, row)
	if len(r.rows) < snapshotChunk {
		return nil
	}
	return r.flush(ctx)
}

func (r *reconciliation) flush(ctx context.Context) error {
	if len(r.rows) == 0 {
		return nil
	}
	_, err := r.w.tx.CopyFrom(ctx, pgx.Identifier{"walhook", "snapshot_owner"}, []string{"schema", "key", "account", "changed", "parent", "hidden"}, pgx.CopyFromRows(r.rows))
	if err != nil {
		return fmt.Errorf("copy %d records: %w", len(r.rows), err)
	}
	clear(r.rows)
	r.rows = r.rows[:0]
	return nil
}

const (
	indexSnapshotSQL = `ALTER TABLE walhook.snapshot_owner ADD PRIMARY KEY (schema, key)`

	// Where a catalog's key is not unique in its table: which of the rows is the record, and
	// whose it is, cannot be told.
	severalSQL = `
		WITH several AS (
			SELECT schema, key, (array_agg(ctid))[1] AS kept FROM walhook.snapshot_owner GROUP BY schema, key HAVING count(*) > 1
		), others AS (
			DELETE FROM walhook.snapshot_owner n USING several s WHERE n.schema = s.schema AND n.key = s.key AND n.ctid <> s.kept
		)
		UPDATE walhook.snapshot_owner n SET several = true, account = NULL, parent = NULL, changed = false, hidden = false
		FROM several s WHERE n.schema = s.schema AND n.key = s.key AND n.ctid = s.kept`

	severalSchemasSQL = `SELECT schema FROM walhook.snapshot_owner WHERE several GROUP BY schema ORDER BY schema COLLATE "C"`

	analyzeSnapshotSQL = `ANALYZE walhook.snapshot_owner, walhook.snapshot_parent, walhook.snapshot_account, walhook.account`

	// A record whose parent is not in the source has the account that its parent had, and
	// otherwise its own. $3 says that the ledger knows parents by their keys of now.
	parentlessSQL = `
		UPDATE walhook.snapshot_owner c SET account = coalesce(
			(SELECT s.account FROM walhook.snapshot_owner s WHERE s.schema = $2 AND s.key = c.parent),
			(SELECT o.account FROM walhook.owner o WHERE o.schema = $2 AND o.key = c.parent AND $3),
			(SELECT o.account FROM walhook.owner o WHERE o.schema = $1 AND o.key = c.key))
		WHERE c.schema = $1 AND c.account IS NULL AND NOT c.several`

	// A record that is owned through another keeps its account until it changes itself.
	// kind is NULL where nothing is to be sent. Whoever gets a record of an account that began
	// in the gap has never got it. A row that the publication's filter hid was
	// sent to nobody: one that it does not hide any more comes as an insert, as in the stream.
	compareSQL = `
		CREATE UNLOGGED TABLE walhook.snapshot_missed AS
		SELECT * FROM (
			SELECT schema, key, former, account, changed, CASE
				WHEN NOT now THEN CASE WHEN known AND former <> '' THEN 'delete' END
				WHEN hidden THEN CASE WHEN known AND changed AND former <> '' THEN 'delete' END -- it left the filter
				WHEN account IS NULL THEN NULL
				WHEN NOT known THEN CASE WHEN account <> '' THEN 'insert' END
				WHEN former = account AND account IN (SELECT account FROM walhook.snapshot_begun) THEN 'insert'
				WHEN former <> account AND (changed OR unknown OR schema = ANY ($2)) THEN
					CASE WHEN former = '' THEN 'insert' WHEN account = '' THEN 'delete' ELSE 'move' END
				WHEN former = account AND (changed OR unknown) AND account <> '' THEN 'update'
			END AS kind
			FROM (
				SELECT coalesce(n.schema, o.schema) AS schema, coalesce(n.key, o.key) AS key, coalesce(o.former, o.account) AS former, n.account,
					coalesce(n.changed, false) AS changed, coalesce(n.hidden, false) AS hidden, coalesce(o.unknown, false) AS unknown, n.schema IS NOT NULL AS now, o.schema IS NOT NULL AND NOT o.hidden AS known
				FROM (SELECT * FROM walhook.owner WHERE deleted_at IS NULL AND schema = ANY ($1)) AS o
				FULL JOIN (SELECT * FROM walhook.snapshot_owner WHERE schema = ANY ($1)) AS n ON n.schema = o.schema AND n.key = o.key
			) AS compared
			UNION ALL
			SELECT schema, key, NULL, account, changed, CASE
				WHEN hidden OR account = '' THEN NULL
				WHEN account IN (SELECT account FROM walhook.snapshot_begun) THEN 'insert'
				WHEN changed THEN 'update'
			END
			FROM walhook.snapshot_owner WHERE schema = ANY ($3)
		) AS every
		WHERE kind IS NOT NULL AND EXISTS (
			SELECT FROM walhook.snapshot_recipient r
			WHERE r.account = every.account AND kind <> 'delete' OR r.account = every.former AND kind IN ('delete', 'move'))`

	indexMissedSQL = `CREATE INDEX ON walhook.snapshot_missed (schema, key)`

	snapshotRowSQL = `
		CREATE UNLOGGED TABLE walhook.snapshot_row (schema text NOT NULL, key text NOT NULL, gone boolean NOT NULL, about text NOT NULL, body bytea NOT NULL, masked bytea)`

	missedSchemasSQL = `
		SELECT schema, count(*) FILTER (WHERE kind <> 'delete') > 0, coalesce(bool_and(changed) FILTER (WHERE kind <> 'delete'), true), count(*) FILTER (WHERE kind IN ('delete', 'move')) > 0
		FROM walhook.snapshot_missed GROUP BY schema ORDER BY schema COLLATE "C"`
)

// Tell finds what was missed, and stores it with the rows that the source reads.
func (r *reconciliation) Tell(ctx context.Context, source catalog.GapSource) error {
	if err := errors.Join(r.flush(ctx), r.w.flush(ctx)); err != nil {
		return err
	}
	plain, alone, without := r.schemasOf(source)
	several, err := r.index(ctx)
	if err != nil {
		return err
	}
	if _, err := r.w.tx.Exec(ctx, analyzeSnapshotSQL); err != nil {
		return err
	}
	for _, s := range r.byDepth() {
		if s.Owner.Schema == "" {
			continue
		}
		if _, err := r.w.tx.Exec(ctx, parentlessSQL, s.Name, s.Owner.Schema, slices.Contains(plain, s.Owner.Schema) || slices.Contains(alone, s.Owner.Schema)); err != nil {
			return err
		}
	}
	about, err := r.accounts(ctx)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		sql  string
		args []any
	}{
		{compareSQL, []any{plain, r.owned(), alone}}, {indexMissedSQL, nil},
		{"ANALYZE walhook.snapshot_missed", nil}, {snapshotRowSQL, nil},
	} {
		if _, err := r.w.tx.Exec(ctx, step.sql, step.args...); err != nil {
			return err
		}
	}
	if err := r.readRows(ctx, source); err != nil {
		return err
	}
	if err := r.keepMissed(ctx, source, r.note(plain, alone, without, several)+about); err != nil {
		return err
	}
	return r.keepLedger(ctx, source, plain)
}

// index makes the key of the snapshot's records. It returns the schemas that have records of
// one key, which are then left out.
func (r *reconciliation) index(ctx context.Context) (several []string, err error) {
	err = pgx.BeginFunc(ctx, r.w.tx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, indexSnapshotSQL)
		return err
	})
	if pgsession.State(err) != codeUniqueViolation {
		return nil, err
	}
	for _, sql := range []string{severalSQL, indexSnapshotSQL} {
		if _, err := r.w.tx.Exec(ctx, sql); err != nil {
			return nil, fmt.Errorf("leave out records whose key is not unique: %w", err)
		}
	}
	return collect[string](r.w.tx.Query(ctx, severalSchemasSQL))
}

// byDepth is the catalog's schemas, parents first.
func (r *reconciliation) byDepth() []*catalog.Schema {
	list := slices.Clone(r.catalog.Schemas)
	slices.SortStableFunc(list, func(a, b *catalog.Schema) int { return r.catalog.Depth(a) - r.catalog.Depth(b) })
	return list
}

// owned are the schemas whose rows name their account themselves.
func (r *reconciliation) owned() (names []string) {
	for _, s := range r.catalog.Schemas {
		if s.Owner.Schema == "" {
			names = append(names, s.Name)
		}
	}
	return names
}

// The rows that are looked up together.
const (
	gapRows  = 1000
	gapBytes = 4 << 20
)

// readRows stores the bodies of all that was missed.
func (r *reconciliation) readRows(ctx context.Context, source catalog.GapSource) error {
	type part struct {
		schema                 string
		rows, changed, deletes bool
	}
	rows, err := r.w.tx.Query(ctx, missedSchemasSQL)
	var parts []part
	if err == nil {
		var one part
		_, err = pgx.ForEachRow(rows, []any{&one.schema, &one.rows, &one.changed, &one.deletes}, func() error {
			parts = append(parts, one)
			return nil
		})
	}
	if err != nil {
		return err
	}
	for _, one := range parts {
		g := &gapWriter{r: r, plan: source.Plan(one.schema)}
		if one.rows {
			if err := source.Rows(ctx, one.schema, r.since, one.changed && !r.all, func(key string, row schemas.Tuple) error { return g.add(ctx, key, row) }); err != nil {
				return err
			}
			if err := g.flush(ctx); err != nil {
				return err
			}
		}
		if one.deletes {
			if err := g.deletes(ctx, source); err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	// A candidate may have changed before the gap: then its last event says the same. The
	// type has six letters, and the rest of a body comes behind it.
	unchangedSQL = `
		WITH last AS (
			SELECT DISTINCT ON (m.schema, m.key) m.schema, m.key, e.webhook_id
			FROM walhook.event e JOIN walhook.snapshot_missed m ON e.schema = m.schema AND e.record = m.schema || ':' || m.key AND m.kind = 'update'
			WHERE e.id >= $1 AND NOT e.replayed ORDER BY m.schema, m.key, e.id DESC
		)
		DELETE FROM walhook.snapshot_missed m USING last l, walhook.snapshot_row r
		WHERE m.schema = l.schema AND m.key = l.key AND r.schema = l.schema AND r.key = l.key AND NOT r.gone AND EXISTS (
			SELECT FROM walhook.event e WHERE e.webhook_id = l.webhook_id AND e.record = m.schema || ':' || m.key AND e.type <> 'delete'
				AND substring(` + BodySQL + ` FROM 17) IN (substring(r.body FROM 17), substring(r.masked FROM 17)))`

	keepMissedSQL = `
		INSERT INTO walhook.missed (gap, n, type, schema, key, account, above, about, own, body, masked)
		SELECT $1, row_number() OVER (ORDER BY phase, place, w.schema COLLATE "C", w.key COLLATE "C", part), w.type, w.schema, w.key, w.account,
			CASE WHEN NOT EXISTS (SELECT FROM walhook.snapshot_account a WHERE a.account = w.account) THEN p.parent END,
			r.about, t.own, typed(r.body), typed(r.masked)
		FROM (
			SELECT 1 AS phase, -d.depth AS place, 1 AS part, schema, key, former AS account, 'delete' AS type FROM walhook.snapshot_missed JOIN depth d USING (schema) WHERE kind = 'delete'
			UNION ALL SELECT 2, d.depth, 1, schema, key, former, 'delete' FROM walhook.snapshot_missed JOIN depth d USING (schema) WHERE kind = 'move'
			UNION ALL SELECT 2, d.depth, 2, schema, key, account, 'insert' FROM walhook.snapshot_missed JOIN depth d USING (schema) WHERE kind = 'move'
			UNION ALL SELECT 3, d.depth, 1, schema, key, account, 'update' FROM walhook.snapshot_missed JOIN depth d USING (schema) WHERE kind = 'update'
			UNION ALL SELECT 4, d.depth, 1, schema, key, account, 'insert' FROM walhook.snapshot_missed JOIN depth d USING (schema) WHERE kind = 'insert'
		) AS w
		JOIN walhook.snapshot_recipient t ON t.account = w.account
		JOIN walhook.snapshot_row r ON r.schema = w.schema AND r.key = w.key AND r.gone = (w.type = 'delete')
		LEFT JOIN walhook.snapshot_parent p ON p.id = w.account`

	reconcilingSQL = `
		UPDATE walhook.gap SET missed = (SELECT count(*) FROM walhook.missed WHERE gap = $1) + (SELECT count(*) FROM walhook.missed_row WHERE gap = $1),
			inserts = 0, updates = 0, deletes = 0, results = 0, events = 0, note = $2
		WHERE id = $1 RETURNING missed`
)

// keepMissed stores what was missed, in the order in which it is appended: what is gone
// before what takes its place, parents before their children.
func (r *reconciliation) keepMissed(ctx context.Context, source catalog.GapSource, note string) error {
	tx := r.w.tx
	if _, err := tx.Exec(ctx, "ANALYZE walhook.snapshot_row"); err != nil {
		return err
	}
	if !r.all { // otherwise everybody gets everything
		if _, err := tx.Exec(ctx, unchangedSQL, r.event); err != nil {
			return fmt.Errorf("compare with the last events: %w", err)
		}
	}
	names, depths := make([]string, 0), make([]int32, 0)
	for _, s := range r.catalog.Schemas {
		names, depths = append(names, s.Name), append(depths, int32(r.catalog.Depth(s)))
	}
	sql := "WITH depth AS (SELECT * FROM unnest($2::text[], $3::int[]) AS d(schema, depth)) " + keepMissedSQL
	for _, column := range []string{"r.body", "r.masked"} {
		sql = strings.Replace(sql, "typed("+column+")", `convert_to('{"type":"' || w.type, 'UTF8') || substring(`+column+` FROM 16)`, 1)
	}
	if _, err := tx.Exec(ctx, sql, r.gap, names, depths); err != nil {
		return fmt.Errorf("store what was missed: %w", err)
	}
	about, err := r.keepRows(ctx, source)
	if err != nil {
		return err
	}
	note += about
	var missed int64
	if err := tx.QueryRow(ctx, reconcilingSQL, r.gap, r.w.store.encoding.text(note)).Scan(&missed); err != nil {
		return err
	}
	r.w.store.log.Info("compared with the source after the gap", zap.Int64("gap", r.gap), zap.Int64("missed", missed), zap.String("note", note))
	return nil
}

var _ catalog.GapSink = (*reconciliation)(nil)
