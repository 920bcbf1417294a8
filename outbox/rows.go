package outbox

import (
	"encoding/binary"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// fewRows are as many as are inserted with an INSERT; more are copied, which is
// cheaper for each, and takes two round trips more.
const fewRows = 50

// rowWriter takes the columns of a row, one after the other, in the order in which
// the table's list names them. So a table has one such list, whether its rows are
// copied or inserted.
type rowWriter interface {
	bigint(int64)
	integer(int32)
	text(string)
	bytes([]byte)
	boolean(bool)
	time(time.Time)
	interval(time.Duration) // without days and months
	bigintOrNull(*int64)
	integerOrNull(*int32)
}

// rowCopy writes rows as COPY reads them in binary (PostgreSQL manual, COPY,
// Binary Format), a little at a time: bodies may be large.
type rowCopy struct {
	rows    int
	row     func(w rowWriter, i int)
	next    int // row
	columns int // of the present row, so far
	buf     []byte
	rest    []byte // of buf, not read yet
	ended   bool
}

// copyBuffer is how much is encoded at once, or one row.
const copyBuffer = 32 << 10

func newRowCopy(rows int, row func(w rowWriter, i int)) *rowCopy {
	c := &rowCopy{rows: rows, row: row, buf: make([]byte, 0, copyBuffer+4<<10)}
	c.buf = append(c.buf, "PGCOPY\n\377\r\n\000"...)
	c.buf = append(c.buf, make([]byte, 8)...) // no flags, no extension
	c.rest = c.buf
	return c
}

func (c *rowCopy) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if c.ended {
			return 0, io.EOF
		}
		c.fill()
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *rowCopy) fill() {
	c.buf = c.buf[:0]
	for ; len(c.buf) < copyBuffer && c.next < c.rows; c.next++ {
		start := len(c.buf)
		c.buf, c.columns = append(c.buf, 0, 0), 0
		c.row(c, c.next)
		binary.BigEndian.PutUint16(c.buf[start:], uint16(c.columns))
	}
	if c.next == c.rows {
		c.buf = append(c.buf, 0xff, 0xff) // the end
		c.ended = true
	}
	c.rest = c.buf
}

// column begins a column with its length.
func (c *rowCopy) column(length int32) {
	c.columns++
	c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(length))
}

func (c *rowCopy) bigint(value int64) {
	c.column(8)
	c.buf = binary.BigEndian.AppendUint64(c.buf, uint64(value))
}

func (c *rowCopy) integer(value int32) {
	c.column(4)
	c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(value))
}

func (c *rowCopy) text(value string) {
	c.column(int32(len(value)))
	c.buf = append(c.buf, value...)
}

func (c *rowCopy) bytes(value []byte) {
	c.column(int32(len(value)))
	c.buf = append(c.buf, value...)
}

func (c *rowCopy) boolean(value bool) {
	c.column(1)
	if value {
		c.buf = append(c.buf, 1)
	} else {
		c.buf = append(c.buf, 0)
	}
}

func (c *rowCopy) time(value time.Time) { c.bigint(microseconds(value)) }

func (c *rowCopy) interval(value time.Duration) {
	c.column(16)
	c.buf = binary.BigEndian.AppendUint64(c.buf, uint64(value.Microseconds()))
	c.buf = append(c.buf, 0, 0, 0, 0, 0, 0, 0, 0)
}

func (c *rowCopy) bigintOrNull(value *int64) {
	if value == nil {
		c.column(-1)
	} else {
		c.bigint(*value)
	}
}

func (c *rowCopy) integerOrNull(value *int32) {
	if value == nil {
		c.column(-1)
	} else {
		c.integer(*value)
	}
}

// valuesRows is how many rows an INSERT lists as VALUES at most. The server takes one listed row
// for half of what an array per column costs it, and eight for two thirds; every number
// of rows is a statement of its own to prepare.
const valuesRows = 8

// rowInsert is an INSERT of a few rows, in the forms in which a server takes them best.
type rowInsert struct {
	listed   [valuesRows]string // by the number of rows, less one: VALUES, with a parameter for each value
	unnested string             // more: a parameter for each column
}

// newRowInsert makes the statement from what comes before the rows, and after them. Each
// column is an expression of its value, which it calls ?, with its type: ?::text.
func newRowInsert(before string, columns []string, after string) *rowInsert {
	s := &rowInsert{}
	var rows, values []string
	for row := range valuesRows {
		values = values[:0]
		for i, column := range columns {
			values = append(values, strings.ReplaceAll(column, "?", "$"+strconv.Itoa(row*len(columns)+i+1)))
		}
		rows = append(rows, "("+strings.Join(values, ", ")+")")
		s.listed[row] = before + " VALUES " + strings.Join(rows, ", ") + after
	}
	var arrays, names []string
	values = values[:0]
	for i, column := range columns {
		name := "c" + strconv.Itoa(i+1)
		_, typ, _ := strings.Cut(column, "?::")
		typ, _, _ = strings.Cut(typ, " ")
		names, arrays = append(names, name), append(arrays, "$"+strconv.Itoa(i+1)+"::"+typ+"[]")
		values = append(values, strings.ReplaceAll(column, "?", name))
	}
	s.unnested = before + " SELECT " + strings.Join(values, ", ") + " FROM unnest(" + strings.Join(arrays, ", ") + ") AS w(" + strings.Join(names, ", ") + ")" + after
	return s
}

// queue queues the statement for rows, which are asked for in order.
func (s *rowInsert) queue(b *pgx.Batch, rows int, row func(w rowWriter, i int)) {
	switch {
	case rows == 0:
	case rows <= valuesRows:
		values := make(rowValues, 0, rows*16)
		for i := range rows {
			row(&values, i)
		}
		b.Queue(s.listed[rows-1], values...)
	default:
		b.Queue(s.unnested, newRowArrays(rows, row)...)
	}
}

// rowValues are the values of rows, one after the other, as a VALUES list takes them.
type rowValues []any

func (v *rowValues) bigint(value int64)           { *v = append(*v, value) }
func (v *rowValues) integer(value int32)          { *v = append(*v, value) }
func (v *rowValues) text(value string)            { *v = append(*v, value) }
func (v *rowValues) bytes(value []byte)           { *v = append(*v, value) }
func (v *rowValues) boolean(value bool)           { *v = append(*v, value) }
func (v *rowValues) time(value time.Time)         { *v = append(*v, value) }
func (v *rowValues) interval(value time.Duration) { *v = append(*v, value) }
func (v *rowValues) bigintOrNull(value *int64)    { *v = append(*v, value) }
func (v *rowValues) integerOrNull(value *int32)   { *v = append(*v, value) }

// rowArrays are rows as an INSERT unnests them: an array per column.
type rowArrays struct {
	rows    int
	columns []any // pointers to slices
	next    int   // column
}

// newRowArrays returns the arguments of the INSERT.
func newRowArrays(rows int, row func(w rowWriter, i int)) []any {
	a := &rowArrays{rows: rows}
	for i := range rows {
		a.next = 0
		row(a, i)
	}
	for i, column := range a.columns {
		a.columns[i] = reflect.ValueOf(column).Elem().Interface()
	}
	return a.columns
}

func addColumn[T any](a *rowArrays, value T) {
	if a.next == len(a.columns) {
		a.columns = append(a.columns, new(make([]T, 0, a.rows)))
	}
	column := a.columns[a.next].(*[]T)
	*column = append(*column, value)
	a.next++
}

func (a *rowArrays) bigint(value int64)           { addColumn(a, value) }
func (a *rowArrays) integer(value int32)          { addColumn(a, value) }
func (a *rowArrays) text(value string)            { addColumn(a, value) }
func (a *rowArrays) bytes(value []byte)           { addColumn(a, value) }
func (a *rowArrays) boolean(value bool)           { addColumn(a, value) }
func (a *rowArrays) time(value time.Time)         { addColumn(a, value) }
func (a *rowArrays) interval(value time.Duration) { addColumn(a, value) }
func (a *rowArrays) bigintOrNull(value *int64)    { addColumn(a, value) }
func (a *rowArrays) integerOrNull(value *int32)   { addColumn(a, value) }

// postgresEpoch is what PostgreSQL counts time from.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func microseconds(t time.Time) int64 {
	return (t.Unix()-postgresEpoch.Unix())*1_000_000 + int64(t.Nanosecond())/1000
}

// fromMicroseconds is the time that is stored as that.
func fromMicroseconds(m int64) time.Time {
	return time.UnixMicro(m + postgresEpoch.UnixMicro())
}
