package source

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/internal/pgsession"
	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

// snapshotLoad reads the accounts and the owners under an exported snapshot.
type snapshotLoad struct {
	cfg      Config
	log      *zap.Logger
	sink     catalog.SnapshotSink
	point    schemas.LSN
	progress time.Time // when progress was last logged
	accounts int
	owners   int
	plans    map[string]*catalog.Plan // by schema; without missing tables

	described []*catalog.TableDescription
	warned    map[schemas.TableName]bool

	only *catalog.Difference // read no more than that; nil for everything
}

func (l *snapshotLoad) read(ctx context.Context, snapshot string) error {
	source, err := NewIntrospector(ctx, l.cfg)
	if err != nil {
		return err
	}
	defer source.Close(ctx)
	return pgx.BeginTxFunc(ctx, source.conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET TRANSACTION SNAPSHOT "+quoteLiteral(snapshot)); err != nil {
			return fmt.Errorf("use the slot's snapshot: %w", err)
		}
		var gap catalog.GapSink
		if l.only == nil {
			visible := schemas.Visible{End: l.point}
			err := tx.QueryRow(ctx, visibleSQL).Scan(&visible.Xmin, &visible.Xmax)
			var members published
			if err == nil {
				members, err = readPublished(ctx, tx, pgsession.Major(tx.Conn().PgConn()), l.cfg)
			}
			if err == nil {
				visible.Published = members.text()
				gap, err = l.sink.Compare(ctx, visible)
			}
			if err != nil {
				return fmt.Errorf("read what the snapshot sees: %w", err)
			}
		}
		if err := l.describeTables(ctx, tx); err != nil {
			return err
		}
		if l.only == nil || l.only.Accounts {
			if err := l.readAccounts(ctx, tx); err != nil {
				return err
			}
		}
		rows, err := newRows(ctx, tx, l.cfg)
		if err != nil {
			return err
		}
		source := &gapSource{rows: rows, each: l.eachRow}
		if l.only != nil {
			return l.readOwnersAndHidden(ctx, tx, source)
		}
		for _, of := range catalog.RowTables() {
			err := source.digests(ctx, of, func(digest [16]byte) error { return l.sink.Row(ctx, of, digest) })
			if err != nil {
				return err
			}
		}
		if gap != nil {
			return l.readGap(ctx, source, gap)
		}
		return l.readOwnersAndHidden(ctx, tx, source)
	})
}

func (l *snapshotLoad) readOwnersAndHidden(ctx context.Context, tx pgx.Tx, source *gapSource) error {
	if err := l.readAllOwners(ctx, tx); err != nil {
		return err
	}
	return l.readHidden(ctx, source)
}

const visibleSQL = `SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint FROM pg_current_snapshot() AS s`

// readGap reads all records, and then the rows of those that were missed in a gap.
func (l *snapshotLoad) readGap(ctx context.Context, source *gapSource, gap catalog.GapSink) error {
	if err := l.findReplaced(ctx, source, gap); err != nil {
		return err
	}
	for _, schema := range l.cfg.Catalog.Schemas {
		if source.Plan(schema.Name) == nil {
			continue // the sink says so
		}
		err := source.records(ctx, schema.Name, func(one catalog.Record) error {
			l.owners++
			return gap.Record(ctx, one)
		})
		if err != nil {
			return err
		}
	}
	return gap.Tell(ctx, source)
}

// describeTables stores the descriptions of the tables under the snapshot.
func (l *snapshotLoad) describeTables(ctx context.Context, tx pgx.Tx) error {
	list, err := describeAll(ctx, tx, l.cfg)
	l.described = list
	if err != nil {
		return err
	}
	for _, d := range list {
		d.From = l.point
	}
	l.warned = map[schemas.TableName]bool{}
	if l.only != nil {
		return nil // the observer describes what is new; of the rest it knows more than one state
	}
	return l.sink.Describe(ctx, list)
}

func (l *snapshotLoad) readAccounts(ctx context.Context, tx pgx.Tx) error {
	a := l.cfg.Catalog.Account
	relation, err := readRelation(ctx, tx, l.cfg.Publication, a.Table)
	if err != nil {
		return err
	}
	optional := func(column string) string {
		if column == "" || relation == nil || relation.Column(column) < 0 {
			return "NULL::pg_catalog.text"
		}
		return schemas.QuoteIdent(column)
	}
	// As text: to_json would call casts that the owner of a type has made.
	asked, err := accountColumnTypes(ctx, tx, relation, l.cfg.Catalog.AccountColumns())
	if err != nil {
		return err
	}
	var columns strings.Builder
	for _, column := range l.cfg.Catalog.AccountColumns() {
		columns.WriteString(", " + optional(column))
	}
	sql := fmt.Sprintf("SELECT %s, %s, %s, %s%s FROM %s", schemas.QuoteIdent(a.ID), schemas.QuoteIdent(a.URL),
		optional(a.Parent), optional(a.Secret), columns.String(), a.Table)
	var compare schemas.Relation
	var above schemas.Equality
	if relation != nil {
		compare = *relation
		if at := relation.Column(a.Parent); at >= 0 {
			above = relation.Columns[at].Equality
		}
	}
	l.cfg.Catalog.Refer(&compare, l.find)
	text := func(column string, value []byte) string {
		if at := compare.Column(column); at >= 0 {
			value = compare.Columns[at].Unpadded(value)
		}
		return string(value)
	}
	return l.eachRow(ctx, tx, sql, func(values [][]byte) error {
		l.accounts++
		id, ok := compare.AccountIDs.Normal(values[0])
		if !ok || values[0] == nil {
			l.leftOut("account left out: its id is not comparable", a.Table)
			return nil
		}
		parent, ok := compare.AccountIDs.NormalOf(above, values[2])
		if !ok {
			parent = nil
		}
		return l.sink.Account(ctx, schemas.Account{
			ID: string(id), URL: text(a.URL, values[1]), Parent: string(parent), Secret: text(a.Secret, values[3]),
			Columns: asked.json(values[4:]),
		})
	})
}

// find returns a table's description under the snapshot.
func (l *snapshotLoad) find(name schemas.TableName) *catalog.TableDescription {
	for _, d := range l.described {
		if d.Table() == name {
			return d
		}
	}
	return nil
}

// leftOut logs, once, that rows are left out.
func (l *snapshotLoad) leftOut(why string, table schemas.TableName) {
	if !l.warned[table] {
		l.warned[table] = true
		l.log.Warn(why, zap.Stringer("table", table))
	}
}

// columnTypes are the types of the account table's columns that rules ask for.
type columnTypes struct {
	types *pgjson.Types
	oids  []uint32 // one for each column; 0 for a missing column
}

func accountColumnTypes(ctx context.Context, q querier, relation *schemas.Relation, columns []string) (columnTypes, error) {
	t := columnTypes{pgjson.NewTypes(), make([]uint32, len(columns))}
	var unknown []uint32
	for i, column := range columns {
		if relation == nil || relation.Column(column) < 0 {
			continue
		}
		t.oids[i] = relation.Columns[relation.Column(column)].Type
		if !t.types.Known(t.oids[i]) {
			unknown = append(unknown, t.oids[i])
		}
	}
	rows, err := readTypes(ctx, q, unknown)
	if err != nil {
		return t, fmt.Errorf("read the types of the account table's columns: %w", err)
	}
	for _, row := range rows {
		t.types.Add(row.Type())
	}
	return t, nil
}

// json converts values as a change of the row does.
func (t columnTypes) json(values [][]byte) []string {
	var columns []string
	for i, value := range values {
		v := schemas.Value{State: schemas.Text, Text: value}
		if value == nil {
			v.State = schemas.Null
		}
		columns = append(columns, catalog.AccountColumnJSON(t.types, t.oids[i], v))
	}
	return columns
}

// wanted reports whether a schema's owners are read.
func (l *snapshotLoad) wanted(schema *catalog.Schema) bool {
	return l.only == nil || slices.Contains(l.only.Owners, schema.Name)
}

// readAllOwners reads the owners of all records that need an edge.
func (l *snapshotLoad) readAllOwners(ctx context.Context, tx pgx.Tx) error {
	l.plans = map[string]*catalog.Plan{}
	for _, schema := range l.cfg.Catalog.Schemas {
		relation, err := readRelation(ctx, tx, l.cfg.Publication, schema.Table)
		if err != nil {
			return err
		}
		if relation != nil {
			l.cfg.Catalog.Refer(relation, l.find)
			l.plans[schema.Name] = l.cfg.Catalog.Bind(relation)
		}
	}
	for _, schema := range l.cfg.Catalog.Schemas {
		if !l.wanted(schema) {
			continue
		}
		if plan := l.plans[schema.Name]; plan != nil && l.cfg.Catalog.Tracked(plan) {
			if err := l.readOwners(ctx, tx, schema, plan); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *snapshotLoad) readOwners(ctx context.Context, tx pgx.Tx, schema *catalog.Schema, plan *catalog.Plan) error {
	sql, ok := l.ownerQuery(schema, plan)
	if !ok {
		l.log.Warn("cannot read the owners of a table: the key or owner column is missing or not sent, in it or in a parent table; 'walhook doctor' says why",
			zap.Stringer("table", schema.Table))
		return nil
	}
	var keys []schemas.Equality
	for _, column := range plan.KeyColumns() {
		keys = append(keys, plan.Relation.Columns[plan.Relation.Column(column)].Equality)
	}
	last := plan
	for last.Schema.Owner.Schema != "" {
		last = l.plans[last.Schema.Owner.Schema]
	}
	owner, ownerAt := last.Relation, last.Relation.Column(last.Schema.Owner.Column)
	return l.eachRow(ctx, tx, sql, func(values [][]byte) error {
		l.owners++
		account, ok := values[0], true
		if account != nil {
			account, ok = owner.AccountIDs.NormalOf(owner.Columns[ownerAt].Equality, account)
		}
		for i := range values[1:] {
			var compares bool
			values[i+1], compares = keys[i].Normal(values[i+1])
			ok = ok && compares
		}
		if !ok {
			l.leftOut("record left out: an id is not comparable", schema.Table)
			return nil
		}
		return l.sink.Owner(ctx, schemas.OwnerEdge{Schema: schema.Name, Key: schemas.KeyOf(values[1:]), Account: string(account)})
	})
}

// ownerQuery returns the query for a schema's keys and accounts, which joins the parents
// between. It leaves out a record whose parent is missing, since its owner is unknown.
func (l *snapshotLoad) ownerQuery(schema *catalog.Schema, plan *catalog.Plan) (string, bool) {
	keys := plan.KeyColumns()
	if len(keys) == 0 || plan.Relation.Column(schema.Owner.Column) < 0 {
		return "", false
	}
	from, last, child := schema.Table.String()+" AS t0", 0, plan.Relation
	for ; schema.Owner.Schema != ""; last++ {
		parent := l.plans[schema.Owner.Schema]
		if parent == nil || len(parent.KeyColumns()) != 1 || parent.Relation.Column(parent.Schema.Owner.Column) < 0 {
			return "", false
		}
		key := parent.Relation.Columns[parent.Relation.Column(parent.KeyColumns()[0])]
		column := child.Columns[child.Column(schema.Owner.Column)]
		left, right := fmt.Sprintf("t%d.%s", last+1, schemas.QuoteIdent(key.Name)), fmt.Sprintf("t%d.%s", last, schemas.QuoteIdent(column.Name))
		if !comparableTypes(key, column) {
			left, right = textOf(left, key), textOf(right, column)
		}
		from += fmt.Sprintf(" JOIN %s AS t%d ON %s OPERATOR(pg_catalog.=) %s", parent.Schema.Table, last+1, left, right)
		schema, child = parent.Schema, parent.Relation
	}
	var columns strings.Builder
	columns.WriteString(fmt.Sprintf("t%d.%s", last, schemas.QuoteIdent(schema.Owner.Column)))
	for _, key := range keys {
		columns.WriteString(", t0." + schemas.QuoteIdent(key))
	}
	return "SELECT " + columns.String() + " FROM " + from, true
}

// comparableTypes reports whether the server has a built-in operator that compares two
// columns.
func comparableTypes(a, b schemas.Column) bool {
	apart := func(e schemas.Equality) bool { return e == schemas.EqualNumber || e == schemas.EqualUUID }
	return !isForeign(a) && !isForeign(b) && (a.Equality == b.Equality || !apart(a.Equality) && !apart(b.Equality))
}

// isForeign says that a column's type may have casts that its owner made: it is not
// built in, and not a form of a type whose equality is known.
func isForeign(c schemas.Column) bool {
	const firstNormalOID = 16384 // built-in objects have lower OIDs
	return c.Type >= firstNormalOID && c.Equality == schemas.EqualAsText
}

// textOf is SQL for a column as text. For a foreign type it calls the output function
// only.
func textOf(sql string, c schemas.Column) string {
	if isForeign(c) {
		return "CASE WHEN " + sql + " IS NOT NULL THEN pg_catalog.format('%s', " + sql + ") END"
	}
	return sql + "::pg_catalog.text"
}

const progressEvery = 5 * time.Second

// eachRow runs sql as [forEachRow] does, and logs its progress.
func (l *snapshotLoad) eachRow(ctx context.Context, tx pgx.Tx, sql string, f func([][]byte) error) error {
	return forEachRow(ctx, tx.Conn().PgConn(), sql, func(values [][]byte) error {
		for i := range values {
			values[i] = Legible(values[i])
		}
		if err := f(values); err != nil {
			return err
		}
		if now := time.Now(); now.Sub(l.progress) > progressEvery {
			l.progress = now
			l.log.Info("reading the source's rows", zap.Int("accounts", l.accounts), zap.Int("owners", l.owners))
		}
		return nil
	})
}

// readFault makes a [Fault] of the error of reading a table. A role to which row-level
// security shows a part of the rows is refused like one without the right.
func readFault(err error) error {
	if sqlState(err) == codeInsufficientRights {
		return &Fault{Problem: "the source's role may not read all of a catalog table",
			Fix: "GRANT SELECT on the catalog's tables to it; under row-level security it needs BYPASSRLS", Err: err}
	}
	return fmt.Errorf("read the source's rows: %w", err)
}
