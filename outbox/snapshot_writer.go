package outbox

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/outbox/route"
	"walhook/schemas"
)

// SnapshotWriter takes what the first snapshot reads. It is valid only inside
// LoadSnapshot.
type SnapshotWriter struct {
	tx       pgx.Tx
	store    *Store
	accounts [][]any
	parents  [][]any
	owners   [][]any
	columns  [][]any

	replaced map[route.RecordKey]bool // keys, and with no schema account ids, that hold U+FFFD
}

// Account stores one row of the account table.
func (w *SnapshotWriter) Account(ctx context.Context, a schemas.Account) error {
	// As a change of the row brings them, whatever the source's encoding.
	id := a.ID
	for _, text := range []*string{&a.ID, &a.URL, &a.Parent, &a.Secret} {
		*text = schemas.Storable(*text)
	}
	if w.again("", a.ID) {
		w.store.log.Error("account left out: its id equals another one after replacing bytes that are not UTF-8", zap.Int("bytes", len(id)))
		return nil
	}
	a.URL = w.store.encoding.url(a.URL)
	for i := range a.Columns {
		a.Columns[i] = w.store.encoding.json(schemas.Storable(a.Columns[i]))
	}
	if len(a.ID) > schemas.MaxAccountBytes {
		w.store.log.Warn("account left out: its id is too long", zap.Int("bytes", len(a.ID)), zap.Int("max_bytes", schemas.MaxAccountBytes))
		return nil
	}
	if parent := route.ParentOf(a.ID, a.Parent); parent != "" {
		w.parents = append(w.parents, []any{a.ID, parent})
	}
	if len(a.Columns) > 0 {
		w.columns = append(w.columns, []any{a.ID, w.store.secrets.sealColumns(a.ID, a.Columns)})
	}
	state, reason := EndpointActive, URLFault(a.URL)
	if a.URL == "" {
		state, reason = EndpointCleared, reasonCleared
	} else if reason != "" {
		state = EndpointUnusable
	}
	secret := a.Secret
	if secret == "" {
		secret = newSecret()
	}
	of := holder{a.ID, AccountWebhook}
	w.accounts = append(w.accounts, []any{a.ID, w.store.secrets.sealURL(a.URL, of), string(state), reason, w.store.secrets.seal(secret, of), a.Secret != ""})
	return w.flushAt(ctx, snapshotChunk)
}

// Owner stores whose one record is.
func (w *SnapshotWriter) Owner(ctx context.Context, edge schemas.OwnerEdge) error {
	account := schemas.Storable(edge.Account)
	edge.Key = schemas.Storable(edge.Key)
	if w.again(edge.Schema, edge.Key) {
		return nil // which of the two it is cannot be told
	}
	if len(account) > schemas.MaxAccountBytes {
		account = "" // as a change of the record would find
	}
	w.owners = append(w.owners, []any{edge.Schema, w.store.encoding.text(edge.Key), account})
	return w.flushAt(ctx, snapshotChunk)
}

// again says whether a text that holds a replaced byte was there before: two
// that differ in such bytes alone are one, and would end the whole snapshot.
func (w *SnapshotWriter) again(schema, text string) bool {
	if !strings.Contains(text, "\uFFFD") {
		return false
	}
	k := route.RecordKey{Schema: schema, Key: text}
	if w.replaced[k] {
		return true
	}
	if w.replaced == nil {
		w.replaced = map[route.RecordKey]bool{}
	}
	w.replaced[k] = true
	return false
}

func (w *SnapshotWriter) flushAt(ctx context.Context, size int) error {
	if len(w.accounts) < size && len(w.owners) < size {
		return nil
	}
	return w.flush(ctx)
}

func (w *SnapshotWriter) flush(ctx context.Context) error {
	_, err := w.tx.CopyFrom(ctx, pgx.Identifier{"walhook", "snapshot_account"},
		[]string{"account", "url", "state", "reason", "secret", "own_secret"}, pgx.CopyFromRows(w.accounts))
	if err != nil {
		return fmt.Errorf("copy %d accounts: %w", len(w.accounts), err)
	}
	_, err = w.tx.CopyFrom(ctx, pgx.Identifier{"walhook", "account"}, []string{"id", "parent"}, pgx.CopyFromRows(w.parents))
	if err != nil {
		return fmt.Errorf("copy %d parent accounts: %w", len(w.parents), err)
	}
	_, err = w.tx.CopyFrom(ctx, pgx.Identifier{"walhook", "account_column"}, []string{"account", "columns"}, pgx.CopyFromRows(w.columns))
	if err != nil {
		return fmt.Errorf("copy the columns of %d accounts: %w", len(w.columns), err)
	}
	_, err = w.tx.CopyFrom(ctx, pgx.Identifier{"walhook", "owner"},
		[]string{"schema", "key", "account"}, pgx.CopyFromRows(w.owners))
	if err != nil {
		return fmt.Errorf("copy %d owners: %w", len(w.owners), err)
	}
	for _, rows := range []*[][]any{&w.accounts, &w.parents, &w.owners, &w.columns} {
		clear(*rows)
		*rows = (*rows)[:0]
	}
	return nil
}
