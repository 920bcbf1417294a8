package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// What is kept of an account's row for the rules of the catalog may hold the
// passwords of its URLs. Under a key it is encrypted, each column by itself and
// bound to its account and place: no JSON begins as a sealed text does.

// columnHolder is what a kept column is bound to. No webhook has such an id.
func columnHolder(account string, i int) holder {
	return holder{account, fmt.Sprint("account_column/", i)}
}

// sealColumns encrypts columns; without a key, or of a column that was not
// sent, it is the same.
func (s sealer) sealColumns(account string, columns []string) []string {
	if s.aead == nil {
		return columns
	}
	sealed := make([]string, len(columns))
	for i, column := range columns {
		if column != "" {
			sealed[i] = s.seal(column, columnHolder(account, i))
		}
	}
	return sealed
}

// openColumns is what sealColumns was given, and what was stored without a key.
func (s sealer) openColumns(account string, stored []string) ([]string, error) {
	columns := make([]string, len(stored))
	for i, text := range stored {
		if !strings.HasPrefix(text, boundPrefix) {
			columns[i] = text
			continue
		}
		var err error
		if columns[i], err = s.open(text, columnHolder(account, i), true); err != nil {
			return nil, errors.New("an account column cannot be decrypted: check that --secret-key is the key that encrypted it")
		}
	}
	return columns, nil
}

const (
	resealColumnsNextSQL = `
		SELECT account, columns FROM walhook.account_column WHERE account > $1 ORDER BY account LIMIT $2 FOR NO KEY UPDATE`

	resealColumnsSQL = `UPDATE walhook.account_column SET columns = $2 WHERE account = $1`
)

// resealColumnsTx encrypts what is kept of the next accounts under the present
// key. It says which account was the last, "" after all of them.
func (s *Store) resealColumnsTx(ctx context.Context, tx pgx.Tx, before sealer, after string, found *Resealed) (last string, err error) {
	type row struct {
		account string
		columns []string
	}
	rows, err := tx.Query(ctx, resealColumnsNextSQL, after, resealChunk)
	if err != nil {
		return "", err
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (one row, err error) {
		return one, r.Scan(&one.account, &one.columns)
	})
	if err != nil {
		return "", err
	}
	for _, one := range list {
		plain, changed := make([]string, len(one.columns)), false
		for i, text := range one.columns {
			of := columnHolder(one.account, i)
			opened, err := s.secrets.open(text, of, false)
			switch {
			case err == nil:
				changed = changed || text != "" && !strings.HasPrefix(text, boundPrefix)
			case before.aead != nil:
				opened, err = before.open(text, of, true)
				changed = true
			}
			if err != nil {
				found.Unreadable = append(found.Unreadable, one.account+"/its columns")
				changed = false
				break
			}
			plain[i] = opened
		}
		if changed {
			if _, err := tx.Exec(ctx, resealColumnsSQL, one.account, s.secrets.sealColumns(one.account, plain)); err != nil {
				return "", err
			}
			found.Sealed++
		}
	}
	if len(list) < resealChunk {
		return "", nil
	}
	return list[len(list)-1].account, nil
}
