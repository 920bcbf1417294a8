package pgjson_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/internal/pgtest"
	"walhook/schemas/pgjson"
)

// oracleValues is how many random values of each generator the server is asked
// about. Their seed is fixed unless -oracle-seed says otherwise.
var (
	oracleValues = flag.Int("oracle-values", 400, "random values per type that PostgreSQL is asked about")
	oracleSeed   = flag.Uint64("oracle-seed", 1, "seed of the random values")
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// pinned are the settings that AppendJSON counts on.
const pinned = `
	set datestyle = 'ISO, MDY'; set intervalstyle = 'postgres'; set timezone = 'UTC'; set extra_float_digits = 1;
	set bytea_output = 'hex'; set client_encoding = 'UTF8'`

// oracle is a database whose server is asked what to_json says.
type oracle struct {
	*testing.T
	conn  *pgx.Conn
	types *pgjson.Types
	asked int // values compared
}

func newOracle(t *testing.T) *oracle {
	o := &oracle{T: t, conn: pgtest.Database(t).Connect(t), types: pgjson.NewTypes()}
	o.exec(pinned)
	return o
}

// exec uses the simple protocol: what comes back is each type's output
// function's text, as in the replication stream.
func (o *oracle) exec(sql string) []*pgconn.Result {
	o.Helper()
	results, err := o.conn.PgConn().Exec(o.Context(), sql).ReadAll()
	if err != nil {
		if len(sql) > 800 {
			sql = sql[:800]
		}
		o.Fatalf("%v\n%s", err, sql)
	}
	return results
}

// texts is the first column of a query's rows.
func (o *oracle) texts(sql string) []string {
	o.Helper()
	var texts []string
	for _, row := range o.exec(sql)[0].Rows {
		texts = append(texts, string(row[0]))
	}
	return texts
}

// learnTypes reads the database's own types, as the reader does.
func (o *oracle) learnTypes() {
	o.Helper()
	for _, row := range readTypes(o.T, o.conn, nil) {
		o.types.Add(row.Type())
	}
}

func readTypes(t *testing.T, conn *pgx.Conn, oids []uint32) []pgjson.TypeRow {
	t.Helper()
	rows, err := conn.Query(t.Context(), pgjson.TypesQuery, oids)
	if err != nil {
		t.Fatal(err)
	}
	types, err := pgx.CollectRows(rows, pgx.RowToStructByPos[pgjson.TypeRow])
	if err != nil {
		t.Fatal(err)
	}
	return types
}

// compare runs a query whose columns are pairs of a value and its to_json, and
// fails for each value that AppendJSON writes otherwise.
func (o *oracle) compare(sql string) {
	o.Helper()
	for _, result := range o.exec(sql) {
		for _, row := range result.Rows {
			for i := 0; i+1 < len(row); i += 2 {
				o.compareValue(result.FieldDescriptions[i].DataTypeOID, row[i], row[i+1])
			}
		}
	}
}

func (o *oracle) compareValue(oid uint32, text, want []byte) {
	o.Helper()
	if text == nil {
		if want != nil {
			o.Errorf("%s: NULL becomes %s", o.types.Name(oid), want)
		}
		return
	}
	o.asked++
	if !o.types.Known(oid) {
		o.Errorf("type %d (%s) is not known", oid, o.types.Name(oid))
	}
	got, err := o.types.AppendJSON(nil, oid, text)
	if err != nil || !bytes.Equal(got, want) {
		o.Errorf("%s %q:\n     got %s, %v\nto_json %s", o.types.Name(oid), text, got, err, want)
	}
}

// literal writes a text as SQL.
func literal(text string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", `\n`, "\r", `\r`).Replace(text) + "'"
}

// TestAppendJSON_IsWhatPostgresSays asks the server about the edge values of
// every built-in type: alone, in arrays of one and two dimensions and with
// bounds, and in composites in arrays.
func TestAppendJSON_IsWhatPostgresSays(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	// An object each, for the types that hold names of objects, and what
	// makes the server fill the types that only it can fill.
	o.exec(`
		create table "Mixed Case" (a int, b int, check (a = b));
		insert into "Mixed Case" select n, n from generate_series(1, 100) n;
		create statistics both_columns (ndistinct, dependencies, mcv) on a, b from "Mixed Case";
		analyze "Mixed Case"`)

	sets := map[string]string{} // by type: its edge values as a table s (v)
	var arrays []string         // the types that have an array type
	for _, row := range o.exec(builtInTypesSQL)[0].Rows {
		name := string(row[0])
		values, ok := edgeValues(name)
		if !ok {
			if _, ok = unreachableTypes[name]; !ok {
				t.Errorf("type %s has no sample", name)
			}
			continue
		}
		sets[name] = "(values (" + strings.Join(values, "), (") + ")) as s (v)"
		if string(row[1]) == "t" {
			arrays = append(arrays, name)
			o.exec(fmt.Sprintf(`create type "of %[1]s" as (v %[2]s, "the ""list""" %[2]s[])`, name, pgx.Identifier{name}.Sanitize()))
		}
	}
	o.learnTypes()
	for _, set := range sets {
		o.compare("select v, to_json(v)::text from " + set)
	}
	for _, name := range arrays {
		o.compare(fmt.Sprintf(`
			select l, to_json(l)::text, q, to_json(q)::text, cube, to_json(cube)::text, l[:0], to_json(l[:0])::text, b, to_json(b)::text
			from (select array_agg(v::text) || array[null, null] as t from %[2]s) t,
			lateral (select t::%[1]s[] as l, array[t, t]::%[1]s[] as q, array[[t], [t]]::%[1]s[] as cube) a,
			lateral (select ('[-2:' || cardinality(t) - 3 || ']=' || l::text)::%[1]s[] as b) shifted`, pgx.Identifier{name}.Sanitize(), sets[name]))
		o.compare(fmt.Sprintf(`
			with c as (select row(v, array[v::text, null, v::text]::%[2]s[])::"of %[1]s" as c from %[3]s)
			select c, to_json(c)::text, array[c, null], to_json(array[c, null])::text from c`, name, pgx.Identifier{name}.Sanitize(), sets[name]))
	}
	t.Logf("%d values compared with PostgreSQL %s", o.asked, o.texts("show server_version")[0])
}

const builtInTypesSQL = `
	select typname, typarray <> 0 from pg_type
	where oid < 10000 and typtype <> 'p' and typrelid = 0 and typoutput <> 'array_out'::regproc
	order by oid`

// unreachableTypes have no value that anything can put into a column.
var unreachableTypes = map[string]string{
	"gtsvector":                    "lives inside GiST indexes",
	"pg_brin_bloom_summary":        "lives inside BRIN indexes",
	"pg_brin_minmax_multi_summary": "lives inside BRIN indexes",
}

// TestAppendJSON_IsWhatPostgresSaysOfUserTypes does the same for types of the
// database's own, with thousands of random values.
func TestAppendJSON_IsWhatPostgresSaysOfUserTypes(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.exec(userTypesSQL)
	generators := slices.Clone(userGenerators)
	for _, extension := range []string{"hstore", "citext", "ltree", "cube", "isn"} {
		if len(o.texts("select name from pg_available_extensions where name = '"+extension+"'")) == 0 {
			t.Logf("extension %s is not available on this server", extension)
			continue
		}
		o.exec("create extension " + extension)
		generators = append(generators, extensionGenerators[extension]...)
	}
	o.learnTypes()
	for _, g := range generators {
		t.Run(g.typ, func(t *testing.T) {
			o.T = t
			random := rand.New(rand.NewPCG(*oracleSeed, 0))
			values := make([]string, *oracleValues)
			for i := range values {
				values[i] = g.value(random)
			}
			o.compare(fmt.Sprintf("select v::%[1]s, to_json(v::%[1]s)::text from unnest(array[%[2]s]::%[3]s[]) v",
				g.typ, strings.Join(values, ","), g.elementType()))
		})
	}
	t.Logf("%d values compared", o.asked)
}

// TestAppendJSON_IsWhatPostgresSaysOfAStreamedRow puts values of all these
// types into one table, takes them from the replication stream with the OIDs
// that the stream names, and compares the object with to_json(row).
func TestAppendJSON_IsWhatPostgresSaysOfAStreamedRow(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	o.exec(userTypesSQL)
	var columns []string
	var rows [][]string // columns' values, row by row
	add := func(typ string, values []string) {
		columns = append(columns, fmt.Sprintf(`"column %d" %s`, len(columns), typ))
		for i, value := range values {
			if i == len(rows) {
				rows = append(rows, make([]string, 0, 200))
			}
			for len(rows[i]) < len(columns)-1 {
				rows[i] = append(rows[i], "null")
			}
			rows[i] = append(rows[i], value)
		}
	}
	for _, row := range o.exec(builtInTypesSQL)[0].Rows {
		name := string(row[0])
		if values, ok := edgeValues(name); ok && !serverFilled[name] {
			add(pgx.Identifier{name}.Sanitize(), values)
			add(pgx.Identifier{name}.Sanitize()+"[]", []string{"array[(" + strings.Join(values, ")::text,(") + ")::text,null]::" + pgx.Identifier{name}.Sanitize() + "[]"})
		}
	}
	random := rand.New(rand.NewPCG(*oracleSeed, 1))
	for _, g := range userGenerators {
		var values []string
		for range 20 {
			values = append(values, g.value(random)+"::"+g.typ)
		}
		add(g.typ, values)
	}
	o.exec("create table wide (" + strings.Join(columns, ", ") + ", row_number serial); create publication wide for table wide")
	o.learnTypes()
	o.exec("select pg_create_logical_replication_slot('wide', 'pgoutput')")
	for _, row := range rows {
		for len(row) < len(columns) {
			row = append(row, "null")
		}
		o.exec("insert into wide values (" + strings.Join(row, ", ") + ")")
	}

	want := o.texts("select to_json(w)::text from wide w order by row_number")
	got := o.streamedRows("wide")
	if len(got) != len(want) {
		t.Fatalf("%d rows streamed, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			at := 0
			for at < min(len(got[i]), len(want[i])) && got[i][at] == want[i][at] {
				at++
			}
			from := max(at-80, 0)
			t.Fatalf("row %d differs at byte %d:\n     got …%.200s\nto_json …%.200s", i, at, got[i][from:], want[i][from:])
		}
	}
	t.Logf("%d rows of %d columns compared", len(want), len(columns))
}

// streamedRows takes the inserts of a slot and writes each as an object.
func (o *oracle) streamedRows(slot string) []string {
	o.Helper()
	result := o.conn.PgConn().ExecParams(o.Context(),
		"select data from pg_logical_slot_get_binary_changes('"+slot+"', null, null, 'proto_version', '1', 'publication_names', '"+slot+"')",
		nil, nil, nil, []int16{pgx.BinaryFormatCode}).Read()
	if result.Err != nil {
		o.Fatal(result.Err)
	}
	var rows []string
	var columns []streamedColumn
	for _, row := range result.Rows {
		switch message := (streamReader{row[0]}); message.byte() {
		case 'R':
			columns = message.relation()
		case 'I':
			rows = append(rows, o.object(columns, message.insert()))
		}
	}
	return rows
}

func (o *oracle) object(columns []streamedColumn, values [][]byte) string {
	o.Helper()
	object := []byte{'{'}
	for i, column := range columns {
		if i > 0 {
			object = append(object, ',')
		}
		object = append(pgjson.AppendString(object, []byte(column.name)), ':')
		if values[i] == nil {
			object = append(object, "null"...)
			continue
		}
		if !o.types.Known(column.oid) {
			o.Errorf("type %d of %s is not known", column.oid, column.name)
		}
		var err error
		if object, err = o.types.AppendJSON(object, column.oid, values[i]); err != nil {
			o.Errorf("%s %q: %v", column.name, values[i], err)
		}
	}
	return string(append(object, '}'))
}

// streamReader reads the two messages of pgoutput that the test needs
// (PostgreSQL manual, Logical Replication Message Formats).
type streamReader struct{ rest []byte }

type streamedColumn struct {
	name string
	oid  uint32
}

func (r *streamReader) take(n int) []byte {
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *streamReader) byte() byte { return r.take(1)[0] }

func (r *streamReader) number(bytes int) (n uint32) {
	for _, b := range r.take(bytes) {
		n = n<<8 | uint32(b)
	}
	return n
}

func (r *streamReader) name() string {
	name := string(r.take(bytes.IndexByte(r.rest, 0)))
	r.byte()
	return name
}

func (r *streamReader) relation() []streamedColumn {
	r.number(4)
	r.name()
	r.name()
	r.byte()
	columns := make([]streamedColumn, r.number(2))
	for i := range columns {
		r.byte()
		columns[i] = streamedColumn{name: r.name(), oid: r.number(4)}
		r.number(4)
	}
	return columns
}

func (r *streamReader) insert() [][]byte {
	r.number(4)
	r.byte()
	values := make([][]byte, r.number(2))
	for i := range values {
		if r.byte() == 't' {
			values[i] = r.take(int(r.number(4)))
		}
	}
	return values
}
