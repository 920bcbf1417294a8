package outbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/outbox/route"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// Rows of the tables of results and events are sent once, when they are inserted. A row
// that the gap's snapshot has was inserted in the gap, if it may have been written since
// the remembered snapshot (visible.go) and is not among the taken ones: those that were
// routed, or there before the first setup. Age alone tells too much, of what was routed just
// before the gap and of rows that were updated or rewritten in it.

const (
	// They exist only inside the transaction, as snapshotTableSQL.
	snapshotTakenSQL = `CREATE UNLOGGED TABLE walhook.snapshot_taken (type text NOT NULL, digest bytea NOT NULL)`

	snapshotWrittenSQL = `
		CREATE UNLOGGED TABLE walhook.snapshot_written (n bigint NOT NULL, type text NOT NULL, account text NOT NULL, digest bytea NOT NULL, content bytea NOT NULL)`

	// Of equal rows of a table without a key it is known how many are taken, and how many of
	// them are old.
	keepMissedRowsSQL = `
		WITH there AS (
			SELECT type, digest, count(*) AS n FROM walhook.snapshot_taken s
			WHERE EXISTS (SELECT FROM walhook.snapshot_written w WHERE w.type = s.type AND w.digest = s.digest) GROUP BY type, digest
		), written AS (
			SELECT *, row_number() OVER (PARTITION BY type, digest ORDER BY n) AS place, count(*) OVER (PARTITION BY type, digest) AS written FROM walhook.snapshot_written
		)
		INSERT INTO walhook.missed_row (gap, n, type, own, content)
		SELECT $1, (SELECT coalesce(max(n), 0) FROM walhook.missed WHERE gap = $1) + row_number() OVER (ORDER BY w.type <> 'result', w.n), w.type, r.own, w.content
		FROM written w JOIN there h USING (type, digest) JOIN walhook.snapshot_recipient r ON r.account = w.account
		LEFT JOIN walhook.taken_row t USING (type, digest)
		WHERE w.place > coalesce(t.n, 0) - (h.n - w.written)`

	takeRowsSQL = `
		INSERT INTO walhook.taken_row (type, digest, n) SELECT type, digest, count(*) FROM walhook.snapshot_taken GROUP BY type, digest`
)

// takeRowsTx makes the rows that the snapshot has the taken ones.
func (w *SnapshotWriter) takeRowsTx(ctx context.Context) error {
	for _, sql := range []string{"TRUNCATE walhook.taken_row", takeRowsSQL, "DROP TABLE walhook.snapshot_taken"} {
		if _, err := w.tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("store which rows of the tables of results and events are there: %w", err)
		}
	}
	return nil
}

// keepRows stores the rows of the gap, and returns what it has to say about them.
func (r *reconciliation) keepRows(ctx context.Context, source catalog.GapSource) (note string, err error) {
	if r.all {
		r.w.store.log.Warn("results and emitted events of the gap are not sent: the rows do not show which were inserted in it", zap.Int64("gap", r.gap))
		return "; rows of the tables of results and events do not show which were inserted in the gap, so none of them is sent", nil
	}
	for _, sql := range []string{snapshotWrittenSQL, "ANALYZE walhook.snapshot_taken"} {
		if _, err := r.w.tx.Exec(ctx, sql); err != nil {
			return "", err
		}
	}
	list := &writtenRows{r: r}
	for _, of := range catalog.RowTables() {
		if r.former != nil && r.former.RowTable(of) != r.catalog.RowTable(of) {
			continue // it begins with this snapshot
		}
		refused := list.refused
		err := source.TableRows(ctx, of, r.since, func(plan *catalog.Plan, row schemas.Tuple) error { return list.add(ctx, of, plan, row) })
		if err != nil {
			return "", err
		}
		if n := list.refused - refused; n > 0 {
			note += fmt.Sprintf("; malformed rows that may be of the gap, in %s: %d", r.catalog.RowTable(of), n)
		}
	}
	if err := list.flush(ctx); err != nil {
		return "", err
	}
	for _, step := range []struct {
		sql  string
		args []any
	}{{"ANALYZE walhook.snapshot_written", nil}, {keepMissedRowsSQL, []any{r.gap}}, {"DROP TABLE walhook.snapshot_written", nil}} {
		if _, err := r.w.tx.Exec(ctx, step.sql, step.args...); err != nil {
			return "", fmt.Errorf("store the results and emitted events of the gap: %w", err)
		}
	}
	return note, nil
}

// writtenRows are rows that may have been inserted in the gap.
type writtenRows struct {
	r       *reconciliation
	n       int64
	rows    [][]any
	bytes   int
	refused int
}

func (l *writtenRows) add(ctx context.Context, of catalog.RowTable, plan *catalog.Plan, row schemas.Tuple) error {
	digest, ok := plan.RowDigest(row)
	var account string
	var said any
	var err error
	if of == catalog.ResultRows {
		var result catalog.Result
		result, err = plan.ResultOf(row)
		account, said = result.Account, result
	} else {
		var emitted catalog.Emitted
		emitted, err = plan.EmittedOf(row)
		account, said = emitted.Account, emitted
	}
	if !ok || err != nil {
		l.refused++
		return nil
	}
	content, err := rowContent(said)
	if err != nil {
		return err
	}
	l.n++
	l.bytes += len(content)
	l.rows = append(l.rows, []any{l.n, string(of), l.r.w.store.encoding.text(schemas.Storable(account)), digest[:], content})
	if len(l.rows) < snapshotChunk && l.bytes < gapBytes {
		return nil
	}
	return l.flush(ctx)
}

func (l *writtenRows) flush(ctx context.Context) error {
	_, err := l.r.w.tx.CopyFrom(ctx, pgx.Identifier{"walhook", "snapshot_written"}, []string{"n", "type", "account", "digest", "content"}, pgx.CopyFromRows(l.rows))
	if err != nil {
		return fmt.Errorf("copy %d rows of the tables of results and events: %w", len(l.rows), err)
	}
	clear(l.rows)
	l.rows, l.bytes = l.rows[:0], 0
	return nil
}

// rowContent is JSON with every text as it is.
func rowContent(said any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(said); err != nil {
		return nil, fmt.Errorf("keep a row of the tables of results and events: %w", err)
	}
	return b.Bytes(), nil
}

const (
	readMissedRowsSQL = `
		SELECT n, type, own, content FROM walhook.missed_row WHERE gap = $1 AND n <= (
			SELECT max(n) FROM (
				SELECT n, row_number() OVER w AS place, sum(octet_length(content)) OVER w AS size
				FROM (SELECT n, content FROM walhook.missed_row WHERE gap = $1 ORDER BY n LIMIT $2) AS next WINDOW w AS (ORDER BY n)
			) AS sized WHERE place = 1 OR size <= $3
		) ORDER BY n`

	leaveMissedRowsSQL = `WITH gone AS (DELETE FROM walhook.missed_row WHERE gap = $1 AND n = ANY ($2) RETURNING 1) SELECT count(*) FROM gone`
)

// readMissedRows reads the next rows of a gap.
func (p *Publisher) readMissedRows(ctx context.Context, gap missedGap) (list []route.MissedRow, err error) {
	rows, err := p.store.pool.Query(ctx, readMissedRowsSQL, gap.id, missedChunk, missedBytes)
	if err != nil {
		return nil, err
	}
	var n int64
	var of string
	var own bool
	var content []byte
	_, err = pgx.ForEachRow(rows, []any{&n, &of, &own, &content}, func() error {
		m := route.MissedRow{Missed: route.Missed{N: n, WebhookID: gap.webhookID(n), Own: own, At: gap.at}}
		var said any
		if catalog.RowTable(of) == catalog.ResultRows {
			m.Result = new(catalog.Result)
			said = m.Result
		} else {
			m.Emitted = new(catalog.Emitted)
			said = m.Emitted
		}
		if err := json.Unmarshal(content, said); err != nil {
			return fmt.Errorf("row %d: %s", n, strings.TrimPrefix(err.Error(), "json: "))
		}
		list = append(list, m)
		return nil
	})
	return list, err
}
