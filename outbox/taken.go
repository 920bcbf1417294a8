package outbox

import (
	"bytes"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/route"
	"walhook/schemas/catalog"
)

const (
	forgetTakenSQL = `DELETE FROM walhook.taken_row WHERE type = $1`

	takenSQL = `
		INSERT INTO walhook.taken_row AS t (type, digest, n) SELECT $1, * FROM unnest($2::bytea[], $3::int[])
		ON CONFLICT (type, digest) DO UPDATE SET n = t.n + excluded.n`

	// A row that was there before walhook noted any may go.
	goneTakenSQL = `DELETE FROM walhook.taken_row WHERE type = $1 AND digest = ANY ($2) AND n <= 0`
)

// queueTaken writes which rows of the tables of results and events came and went.
func queueTaken(b *pgx.Batch, taken map[catalog.RowTable]*route.TakenRows) {
	for _, of := range catalog.RowTables() {
		rows := taken[of]
		if rows == nil {
			continue
		}
		if rows.Forgotten {
			b.Queue(forgetTakenSQL, string(of))
		}
		var digests, gone [][]byte
		for digest, n := range rows.More {
			if n != 0 {
				digests = append(digests, digest[:])
			}
			if n < 0 {
				gone = append(gone, digest[:])
			}
		}
		slices.SortFunc(digests, bytes.Compare) // neighbours in the index
		counts := make([]int32, len(digests))
		for i, digest := range digests {
			counts[i] = int32(rows.More[[16]byte(digest)])
		}
		if len(digests) > 0 {
			b.Queue(takenSQL, string(of), digests, counts)
		}
		if len(gone) > 0 {
			b.Queue(goneTakenSQL, string(of), gone)
		}
	}
}
