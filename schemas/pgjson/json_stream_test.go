package pgjson_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/schemas/pgjson"
)

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
