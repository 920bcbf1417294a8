package source

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/schemas/pgjson"
)

// Rows reads whole rows of the catalog's tables under one snapshot, as the stream would
// send them: the same text, and no column, table or row that the publication does not
// hold. One goroutine at a time uses it.
type Rows struct {
	cfg    Config
	tx     pgx.Tx
	end    func(context.Context) // ends the session; nil for the caller's own
	tables map[string]*rowTable  // by schema

	described []*catalog.TableDescription
}

// rowTable is a schema's table as the publication has it.
type rowTable struct {
	plan    *catalog.Plan
	filters []rowFilter // of the published tables that make it up
	refused string      // why its rows cannot be read; "" when they can
	replacedTables
}

// rowFilter is the publication's row filter of a table or partition.
type rowFilter struct {
	table uint32
	where string // "" for none
}

// Row is one row of a record.
type Row struct {
	Key     string // as [catalog.Plan.Key] returns it
	Account string // by the owner's chain; "" for none
	Tuple   schemas.Tuple
	At      Place
	Xmin    uint32 // 0 unless it was asked for
}

// Place is where a row stands in the order of its table's keys: the texts of the key's
// columns as the source sends them.
type Place [][]byte

// RowQuery says which rows to read. Rows come in the order of their keys.
type RowQuery struct {
	Schema   string
	Accounts []string // whose rows; nil for all, those without an account included
	After    Place    // only rows behind it; nil for all
	Keys     []Place  // only these rows; nil for all
	Xmin     bool     // also return the transaction that wrote the row
}

// Rows opens a session that reads at the moment. The session outlives the moment, which
// may be closed once Rows has returned.
func (m *Moment) Rows(ctx context.Context, cfg Config) (*Rows, error) {
	cfg = cfg.WithDefaults()
	source, err := NewIntrospector(ctx, cfg)
	if err != nil {
		return nil, err
	}
	rows, err := func() (*Rows, error) {
		tx, err := source.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
		if err != nil {
			return nil, fmt.Errorf("read the source's rows: %w", err)
		}
		if _, err := tx.Exec(ctx, "SET TRANSACTION SNAPSHOT "+quoteLiteral(m.snapshot)); err != nil {
			return nil, fmt.Errorf("use the slot's snapshot: %w", err)
		}
		return newRows(ctx, tx, cfg)
	}()
	if err != nil {
		source.Close(ctx)
		return nil, err
	}
	rows.end = source.Close
	return rows, nil
}

// newRows reads rows under the snapshot of a transaction.
func newRows(ctx context.Context, tx pgx.Tx, cfg Config) (*Rows, error) {
	r := &Rows{cfg: cfg.WithDefaults(), tx: tx, tables: map[string]*rowTable{}}
	described, err := describeAll(ctx, tx, r.cfg)
	if err != nil {
		return nil, err
	}
	r.described = described
	for _, schema := range r.cfg.Catalog.Schemas {
		table := &rowTable{}
		r.tables[schema.Name] = table
		d := r.find(schema.Table)
		if d == nil {
			table.refused = "its table does not exist"
			continue
		}
		if err := table.bind(ctx, tx, r.cfg, d, r.find); err != nil {
			return nil, err
		}
		table.refuse()
	}
	return r, nil
}

// find returns the description of a table; nil for none.
func (r *Rows) find(name schemas.TableName) *catalog.TableDescription {
	at := slices.IndexFunc(r.described, func(d *catalog.TableDescription) bool { return d.Table() == name })
	if at < 0 {
		return nil
	}
	return r.described[at]
}

// Close ends the session.
func (r *Rows) Close(ctx context.Context) {
	if r.end != nil {
		r.end(ctx)
	}
}

// Relation is the table of a schema as the rows are shaped; nil where its rows cannot be
// read, with the reason.
func (r *Rows) Relation(schema string) (relation *schemas.Relation, refused string) {
	table := r.tables[schema]
	if table == nil {
		return nil, "the catalog does not name it"
	}
	if table.refused != "" {
		return nil, table.refused
	}
	return table.plan.Relation, ""
}

// publishedSQL lists what a publication holds of a table: itself, or its partitions.
// Column lists and row filters came with PostgreSQL 15.
const publishedSQL = `
	WITH RECURSIVE tree (oid) AS (
		SELECT $2::oid
		UNION SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
	)
	SELECT c.oid, coalesce(to_jsonb(t) ->> 'rowfilter', ''),
		ARRAY(SELECT jsonb_array_elements_text(CASE WHEN jsonb_typeof(to_jsonb(t) -> 'attnames') = 'array' THEN to_jsonb(t) -> 'attnames' ELSE '[]' END))
	FROM pg_publication_tables t JOIN pg_namespace n ON n.nspname = t.schemaname
	JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename JOIN tree ON tree.oid = c.oid
	WHERE t.pubname = $1 ORDER BY c.oid`

// bind binds the table to the catalog, with the columns that the publication holds.
func (t *rowTable) bind(ctx context.Context, q querier, cfg Config, d *catalog.TableDescription, find func(schemas.TableName) *catalog.TableDescription) error {
	rows, err := q.Query(ctx, publishedSQL, cfg.Publication, d.OID)
	sent := *d
	sent.Columns = slices.Clone(d.Columns)
	if err == nil {
		var one rowFilter
		var columns []string
		_, err = pgx.ForEachRow(rows, []any{&one.table, &one.where, &columns}, func() error {
			t.filters = append(t.filters, one)
			for i := range sent.Columns {
				if len(columns) > 0 && !slices.Contains(columns, sent.Columns[i].Name) {
					sent.Columns[i].Unsent = true
				}
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("read what is published of table %s: %w", d.Table(), err)
	}
	relation := relationOf(&sent)
	relation.Types = pgjson.NewTypes()
	for _, row := range d.Types {
		relation.Types.Add(row.Type())
	}
	cfg.Catalog.Refer(relation, find)
	t.plan = cfg.Catalog.Bind(relation)
	return nil
}

// refuse says why the records of a table cannot be read.
func (t *rowTable) refuse() {
	switch {
	case len(t.filters) == 0:
		t.refused = "its table is not in the publication"
	case t.plan.Keyless():
		t.refused = "its table has no key"
	case len(t.plan.KeyColumns()) == 0:
		t.refused = "the publication leaves out a part of its key"
	case !t.plan.HasOwner():
		t.refused = "its table lacks the owner's column, or the publication leaves it out"
	}
}

// Each calls f with the rows of a query; f may keep them. It returns a [*Fault] when the
// role may not read them.
func (r *Rows) Each(ctx context.Context, query RowQuery, f func(Row) error) error {
	schema, table := r.cfg.Catalog.Schema(query.Schema), r.tables[query.Schema]
	if table == nil || table.refused != "" {
		return fmt.Errorf("the rows of schema %s cannot be read", query.Schema)
	}
	chain, ok := r.chain(table)
	if !ok {
		return &Fault{Problem: fmt.Sprintf("the owners of schema %s cannot be found: the key or owner column is missing in it or in a parent table", query.Schema),
			Fix: "'walhook doctor' says why"}
	}
	columns := rowColumns(schema, table.plan, r.cfg.Catalog)
	sql, _ := r.sql(query, table, chain, columns)
	wanted := map[string]bool{}
	for _, account := range query.Accounts {
		wanted[account] = true
	}
	last := chain[len(chain)-1]
	owner, ownerAt := last.plan.Relation, last.plan.Relation.Column(last.plan.Schema.Owner.Column)
	return forEachRow(ctx, r.tx.Conn().PgConn(), sql, func(values [][]byte) error {
		var row Row
		if account := values[0]; account != nil {
			normal, ok := owner.AccountIDs.NormalOf(owner.Columns[ownerAt].Equality, Legible(account))
			if !ok {
				return nil // the stream sends nobody such a row
			}
			row.Account = strings.ToValidUTF8(string(normal), replacement)
		}
		if query.Accounts != nil && !wanted[row.Account] {
			return nil
		}
		if values[1] != nil {
			xmin, err := strconv.ParseUint(string(values[1]), 10, 32)
			if err != nil {
				return fmt.Errorf("read a row's xmin: %w", err)
			}
			row.Xmin = uint32(xmin)
		}
		row.read(table.plan, columns, values[2:])
		if row.Key, ok = table.plan.Key(row.Tuple); !ok {
			return nil // nor one whose key is not known
		}
		return f(row)
	})
}

// Count says how many rows a query has, or a few more: those that [Rows.Each] leaves out
// since an id is not comparable.
func (r *Rows) Count(ctx context.Context, query RowQuery) (n int64, err error) {
	schema, table := r.cfg.Catalog.Schema(query.Schema), r.tables[query.Schema]
	if table == nil || table.refused != "" {
		return 0, nil
	}
	chain, ok := r.chain(table)
	if !ok {
		return 0, nil
	}
	_, sql := r.sql(query, table, chain, rowColumns(schema, table.plan, r.cfg.Catalog))
	err = forEachRow(ctx, r.tx.Conn().PgConn(), sql, func(values [][]byte) (err error) {
		n, err = strconv.ParseInt(string(values[0]), 10, 64)
		return err
	})
	return n, err
}

// read copies the values of some columns.
func (r *Row) read(plan *catalog.Plan, columns []int, values [][]byte) {
	size := 0
	for _, value := range values {
		size += len(value)
	}
	text := make([]byte, 0, size) // one allocation for all that fits
	copied := func(value []byte) []byte {
		text = append(text, value...)
		return text[len(text)-len(value) : len(text) : len(text)]
	}
	r.Tuple = make(schemas.Tuple, len(plan.Relation.Columns))
	for i, column := range columns {
		r.Tuple[column].State = schemas.Null
		if values[i] != nil {
			r.Tuple[column] = schemas.Value{State: schemas.Text, Text: copied(values[i])}
		}
	}
	for _, name := range plan.KeyColumns() {
		r.At = append(r.At, r.Tuple[plan.Relation.Column(name)].Text)
	}
	for i := range r.Tuple {
		if r.Tuple[i].State == schemas.Text {
			r.Tuple[i].Text = Legible(r.Tuple[i].Text)
		}
	}
}

// chain is a schema's table and the parents' that lead to the owner.
func (r *Rows) chain(table *rowTable) (chain []*rowTable, ok bool) {
	for {
		chain = append(chain, table)
		owner := table.plan.Schema.Owner
		if !table.plan.HasOwner() {
			return nil, false
		}
		if owner.Schema == "" {
			return chain, true
		}
		if table = r.tables[owner.Schema]; table == nil || table.plan == nil || len(table.plan.KeyColumns()) != 1 {
			return nil, false
		}
	}
}

// rowColumns are the columns of a table that an event may need: never another one.
func rowColumns(schema *catalog.Schema, plan *catalog.Plan, cat *catalog.Catalog) (columns []int) {
	names := append(plan.KeyColumns(), schema.Owner.Column)
	for _, field := range schema.Fields {
		names = append(names, field.Column)
	}
	if plan.Account != nil {
		names = append(names, cat.Account.ID)
	}
	for i, column := range plan.Relation.Columns {
		if slices.Contains(names, column.Name) {
			columns = append(columns, i)
		}
	}
	return columns
}

// sql selects the owner, xmin or NULL, and the columns; count counts these rows.
func (r *Rows) sql(query RowQuery, table *rowTable, chain []*rowTable, columns []int) (sql, count string) {
	last := len(chain) - 1
	from := new(strings.Builder)
	from.WriteString(table.from(columns) + " AS t0")
	for i, child := range chain[:last] {
		parent := chain[i+1].plan
		key := parent.Relation.Columns[parent.Relation.Column(parent.KeyColumns()[0])]
		column := child.plan.Relation.Columns[child.plan.Relation.Column(child.plan.Schema.Owner.Column)]
		left, right := fmt.Sprintf("t%d.%s", i+1, schemas.QuoteIdent(key.Name)), fmt.Sprintf("t%d.%s", i, schemas.QuoteIdent(column.Name))
		if !comparableTypes(key, column) {
			left, right = textOf(left, key), textOf(right, column)
		}
		// A child whose parent is gone has no known owner.
		fmt.Fprintf(from, " JOIN %s AS t%d ON %s OPERATOR(pg_catalog.=) %s", parent.Schema.Table, i+1, left, right)
	}
	owner := chain[last].plan.Relation
	ownerColumn := owner.Columns[owner.Column(chain[last].plan.Schema.Owner.Column)]
	ownerName := fmt.Sprintf("t%d.%s", last, schemas.QuoteIdent(ownerColumn.Name))

	var selected, where, order []string
	selected = append(selected, ownerName)
	if query.Xmin {
		selected = append(selected, `t0."walhook xmin"`)
	} else {
		selected = append(selected, "NULL")
	}
	relation := table.plan.Relation
	for _, i := range columns {
		selected = append(selected, "t0."+schemas.QuoteIdent(relation.Columns[i].Name))
	}
	for _, name := range table.plan.KeyColumns() {
		where = append(where, "t0."+schemas.QuoteIdent(name)+" IS NOT NULL")
		order = append(order, orderOf("t0."+schemas.QuoteIdent(name), relation.Columns[relation.Column(name)]))
	}
	if query.Accounts != nil {
		if condition := accountsIn(ownerName, ownerColumn, owner.AccountIDs, query.Accounts); condition != "" {
			where = append(where, condition)
		}
	}
	tuple := "(" + strings.Join(order, ", ") + ")"
	if query.After != nil {
		where = append(where, tuple+" > "+literals(query.After))
	}
	if query.Keys != nil {
		listed := make([]string, len(query.Keys))
		for i, key := range query.Keys {
			listed[i] = literals(key)
		}
		where = append(where, tuple+" IN ("+strings.Join(listed, ", ")+")")
	}
	rows := " FROM " + from.String() + " WHERE " + strings.Join(where, " AND ")
	return "SELECT " + strings.Join(selected, ", ") + rows + " ORDER BY " + strings.Join(order, ", "), "SELECT count(*)" + rows
}

func literals(place Place) string {
	parts := make([]string, len(place))
	for i, text := range place {
		parts[i] = quoteLiteral(string(text))
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// from is the table as the publication holds it. A row filter names columns without
// their table, so it stands in a query of its own.
func (t *rowTable) from(columns []int) string {
	names := make([]string, 0, len(columns)+1)
	for _, i := range columns {
		names = append(names, schemas.QuoteIdent(t.plan.Relation.Columns[i].Name))
	}
	names = append(names, t.xmin()+` AS "walhook xmin"`)
	sql := "SELECT " + strings.Join(names, ", ") + " FROM " + t.plan.Relation.Table().String()
	if where := t.published(); where != "" {
		sql += " WHERE " + where
	}
	return "(" + sql + ")"
}

// published is the condition that the publication's row filters make; "" for none.
func (t *rowTable) published() string {
	whole, parts := true, []string(nil)
	for _, one := range t.filters {
		switch {
		case one.where == "":
			parts = append(parts, fmt.Sprintf("tableoid OPERATOR(pg_catalog.=) %d", one.table))
		case one.table == t.plan.Relation.OID:
			return "(" + one.where + ")" // of the root: it is the partitions' too
		default:
			whole = false
			parts = append(parts, fmt.Sprintf("tableoid OPERATOR(pg_catalog.=) %d AND (%s)", one.table, one.where))
		}
	}
	if whole {
		return ""
	}
	return "((" + strings.Join(parts, ") OR (") + "))"
}

// orderedTypes are the built-in types whose own order is that of their index: bool, bytea,
// name, int8, int2, int4, text, oid, float4, float8, bpchar, varchar, date, time,
// timestamp, timestamptz, numeric, uuid.
var orderedTypes = []uint32{16, 17, 19, 20, 21, 23, 25, 26, 700, 701, 1042, 1043, 1082, 1083, 1114, 1184, 1700, 2950}

// orderOf is SQL for a column that sorts, and that compares with its text. For other types it
// is the text: their operators may be of anybody.
func orderOf(sql string, c schemas.Column) string {
	if slices.Contains(orderedTypes, c.Type) {
		return sql
	}
	return textOf(sql, c) + ` COLLATE pg_catalog."C"`
}

// accountsIn is a condition that holds for every row of the accounts, and for few others:
// the caller compares exactly. It is "" where the server cannot tell.
func accountsIn(sql string, c schemas.Column, ids schemas.Equality, accounts []string) string {
	const mostListed = 1000
	if c.Equality != ids || len(accounts) > mostListed {
		return ""
	}
	bits := map[uint32]int{20: 64, 21: 16, 23: 32}[c.Type]
	exact := slices.Contains([]uint32{19, 25, 1042, 1043, 1700, 2950}, c.Type) // name, text, bpchar, varchar, numeric, uuid
	if bits == 0 && !exact {
		if c.Equality != schemas.EqualAsText {
			return ""
		}
		sql = textOf(sql, c)
	}
	listed := []string{"NULL"}
	for _, account := range accounts {
		if strings.Contains(account, replacement) {
			return "" // not the bytes that the source has
		}
		if bits != 0 {
			if _, err := strconv.ParseInt(account, 10, bits); err != nil {
				continue // no value of the column
			}
		}
		listed = append(listed, quoteLiteral(account))
	}
	return sql + " IN (" + strings.Join(listed, ", ") + ")"
}

// forEachRow runs sql by the simple protocol, whose values are the same text as in the
// stream. The slices are valid during the call only.
func forEachRow(ctx context.Context, conn *pgconn.PgConn, sql string, f func([][]byte) error) error {
	// Not by pgx, which refuses sessions that are not UTF-8.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := conn.Exec(ctx, sql)
	defer results.Close()
	for results.NextResult() {
		rows := results.ResultReader()
		for rows.NextRow() {
			if err := f(rows.Values()); err != nil {
				cancel() // ends the session: otherwise Close would receive all the rest
				return err
			}
		}
		if _, err := rows.Close(); err != nil {
			return readFault(err)
		}
	}
	if err := results.Close(); err != nil {
		return readFault(err)
	}
	return nil
}
