package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Resealed says what [Store.Reseal] found.
type Resealed struct {
	Sealed     int      // encrypted under the present key, or bound to their endpoint, by this run
	Already    int      // as they should be
	Unreadable []string // account/webhook whose secret or URL, or account of which a column, opens under neither key
}

const resealChunk = 500

const (
	resealNextSQL = `
		SELECT id, account, webhook, secret, array_prepend(previous_secret, older_secrets), coalesce(url, ''), ` + strictSQL + `, ` + strictURLSQL + ` FROM walhook.endpoint
		WHERE id > $1 ORDER BY id LIMIT $2 FOR NO KEY UPDATE`

	// What the secrets are does not change, so no sender has to learn of it.
	resealSQL = `UPDATE walhook.endpoint SET secret = $2, previous_secret = ($3::text[])[1], older_secrets = ($3::text[])[2:], url = nullif($4, '') WHERE id = $1`

	// From here on nothing else is taken. Not where another process stored one
	// in another way meanwhile.
	sealingSQL = `
		INSERT INTO walhook.sealing (singleton, urls, key_id) SELECT true, true, $1::text
		WHERE NOT EXISTS (SELECT FROM walhook.endpoint
			WHERE secret NOT LIKE 'sealed:v2:%' OR previous_secret NOT LIKE 'sealed:v2:%' OR EXISTS (SELECT FROM unnest(older_secrets) o WHERE o NOT LIKE 'sealed:v2:%')
				OR url ~ '^[^/?#]*://[^/?#]*@' AND url NOT LIKE '%://sealed.v2.%')
		ON CONFLICT (singleton) DO UPDATE SET urls = true, key_id = excluded.key_id`

	isSealingSQL = `SELECT ` + strictURLSQL
)

// Reseal encrypts every stored secret, user name and password of every URL, and
// what is kept of accounts for the catalog's rules, under the present key for its
// endpoint or account, without changing it. old is the key that they were stored under before; empty
// for none. It may be interrupted and run again. Once all are sealed, secrets
// that are not are refused, and so is a secret of another endpoint.
func (s *Store) Reseal(ctx context.Context, old []byte) (Resealed, error) {
	if s.secrets.aead == nil {
		return Resealed{}, errors.New("--secret-key is missing: set the key to encrypt with")
	}
	before, err := newSealer(old)
	if err != nil {
		return Resealed{}, err
	}
	var found Resealed
	for after, n := int64(0), resealChunk; n == resealChunk; {
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) (err error) {
			after, n, err = s.resealTx(ctx, tx, before, after, &found)
			return err
		})
		if err != nil {
			return found, fmt.Errorf("reseal: %w", err)
		}
	}
	for after, more := "", true; more; {
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) (err error) {
			after, err = s.resealColumnsTx(ctx, tx, before, after, &found)
			return err
		})
		if err != nil {
			return found, fmt.Errorf("reseal account columns: %w", err)
		}
		more = after != ""
	}
	if len(found.Unreadable) > 0 {
		return found, nil
	}
	if _, err := s.pool.Exec(ctx, sealingSQL, s.secrets.keyID); err != nil {
		return found, fmt.Errorf("reseal: %w", err)
	}
	var done bool
	if err := s.pool.QueryRow(ctx, isSealingSQL).Scan(&done); err != nil {
		return found, fmt.Errorf("reseal: %w", err)
	}
	if !done {
		return found, errors.New("reseal: another walhook process stores secrets with another key: start all processes with this --secret-key, and run reseal again")
	}
	return found, nil
}

func (s *Store) resealTx(ctx context.Context, tx pgx.Tx, before sealer, after int64, found *Resealed) (last int64, n int, err error) {
	type row struct {
		id      int64
		of      holder
		secret  string
		earlier []*string // the previous one, or nil, and those before it
		url     string
		strict  bool
		urls    bool
	}
	rows, err := tx.Query(ctx, resealNextSQL, after, resealChunk)
	if err != nil {
		return after, 0, err
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (one row, err error) {
		return one, r.Scan(&one.id, &one.of.account, &one.of.webhook, &one.secret, &one.earlier, &one.url, &one.strict, &one.urls)
	})
	if err != nil {
		return after, 0, err
	}
	for _, one := range list {
		after = one.id
		secret, changed, err := s.reseal(before, one.secret, one.of, one.strict)
		for i, stored := range one.earlier {
			if err != nil || stored == nil {
				continue
			}
			text, other, opened := s.reseal(before, *stored, one.of, one.strict)
			one.earlier[i], changed, err = &text, changed || other, opened
		}
		address := one.url
		if err == nil {
			var other bool
			address, other, err = s.resealURL(before, one.url, one.of, one.urls)
			changed = changed || other
		}
		switch {
		case err != nil:
			found.Unreadable = append(found.Unreadable, one.of.account+"/"+one.of.webhook)
		case !changed:
			found.Already++
		default:
			if _, err := tx.Exec(ctx, resealSQL, one.id, secret, one.earlier, address); err != nil {
				return after, 0, err
			}
			found.Sealed++
		}
	}
	return after, len(list), nil
}

// reseal is a stored secret under the present key and for its endpoint.
func (s *Store) reseal(before sealer, stored string, of holder, strict bool) (text string, changed bool, err error) {
	secret, err := s.secrets.open(stored, of, strict)
	if err == nil && strings.HasPrefix(stored, boundPrefix) {
		return stored, false, nil
	}
	if err != nil && before.aead != nil {
		secret, err = before.open(stored, of, strict)
	}
	if err != nil {
		return "", false, err
	}
	return s.secrets.seal(secret, of), true, nil
}

// resealURL is a stored URL with its user information under the present key.
func (s *Store) resealURL(before sealer, stored string, of holder, strict bool) (text string, changed bool, err error) {
	text, err = s.secrets.openURL(stored, of, strict)
	if err != nil && before.urls != nil {
		text, err = before.openURL(stored, of, strict)
	}
	if err != nil {
		return "", false, err
	}
	sealed := s.secrets.sealURL(text, of)
	return sealed, sealed != stored, nil
}
