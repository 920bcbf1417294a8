package admin

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/seal"
)

// Resealed says what [Admin.Reseal] found.
type Resealed struct {
	Sealed     int      // encrypted under the present key, or bound to their endpoint, by this run
	Already    int      // as they should be
	Unreadable []string // account/webhook whose secret, URL or header, or account of which a column, opens under neither key
}

const resealChunk = 500

const (
	resealNextSQL = `
		SELECT id, account, webhook, secret, array_prepend(previous_secret, older_secrets), coalesce(url, ''), header_names, header_values, ` + seal.StrictSQL + `, ` + seal.StrictURLSQL + ` FROM walhook.endpoint
		WHERE id > $1 ORDER BY id LIMIT $2 FOR NO KEY UPDATE`

	// What the secrets are does not change, so no sender has to learn of it.
	resealSQL = `UPDATE walhook.endpoint SET secret = $2, previous_secret = ($3::text[])[1], older_secrets = ($3::text[])[2:], url = nullif($4, ''), header_values = $5 WHERE id = $1`

	// From here on nothing else is taken. Not where another process stored one
	// in another way meanwhile.
	sealingSQL = `
		INSERT INTO walhook.sealing (singleton, urls, key_id) SELECT true, true, $1::text
		WHERE NOT EXISTS (SELECT FROM walhook.endpoint
			WHERE secret NOT LIKE 'sealed:v2:%' OR previous_secret NOT LIKE 'sealed:v2:%' OR EXISTS (SELECT FROM unnest(older_secrets) o WHERE o NOT LIKE 'sealed:v2:%')
				OR EXISTS (SELECT FROM unnest(header_values) h WHERE h NOT LIKE 'sealed:v2:%')
				OR url ~ '^[^/?#]*://[^/?#]*@' AND url NOT LIKE '%://sealed.v2.%')
		ON CONFLICT (singleton) DO UPDATE SET urls = true, key_id = excluded.key_id`

	isSealingSQL = `SELECT ` + seal.StrictURLSQL
)

// Reseal encrypts every stored secret, user name and password of every URL, every value of
// a header, and what is kept of accounts for the catalog's rules, under the present key for its
// endpoint or account, without changing it. old is the key that they were stored under before; empty
// for none. It may be interrupted and run again. Once all are sealed, secrets
// that are not are refused, and so is a secret of another endpoint.
func (a *Admin) Reseal(ctx context.Context, old []byte) (Resealed, error) {
	if !a.secrets.HasKey() {
		return Resealed{}, errors.New("--secret-key is missing: set the key to encrypt with")
	}
	before, err := seal.New(old)
	if err != nil {
		return Resealed{}, err
	}
	var found Resealed
	for after, n := int64(0), resealChunk; n == resealChunk; {
		err := pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) (err error) {
			after, n, err = a.resealTx(ctx, tx, before, after, &found)
			return err
		})
		if err != nil {
			return found, fmt.Errorf("reseal: %w", err)
		}
	}
	for after, more := "", true; more; {
		err := pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) (err error) {
			after, err = a.resealColumnsTx(ctx, tx, before, after, &found)
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
	err = a.change(ctx, &Act{Action: actResealed, Detail: fmt.Sprintf("encrypted now: %d", found.Sealed)}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sealingSQL, a.secrets.KeyID())
		return err
	})
	if err != nil {
		return found, fmt.Errorf("reseal: %w", err)
	}
	var done bool
	if err := a.pool.QueryRow(ctx, isSealingSQL).Scan(&done); err != nil {
		return found, fmt.Errorf("reseal: %w", err)
	}
	if !done {
		return found, errors.New("reseal: another walhook process stores secrets with another key: start all processes with this --secret-key, and run reseal again")
	}
	return found, nil
}

func (a *Admin) resealTx(ctx context.Context, tx pgx.Tx, before seal.Sealer, after int64, found *Resealed) (last int64, n int, err error) {
	type row struct {
		id      int64
		of      seal.Holder
		secret  string
		earlier []*string // the previous one, or nil, and those before it
		url     string
		names   []string // of headers
		values  []string
		strict  bool
		urls    bool
	}
	rows, err := tx.Query(ctx, resealNextSQL, after, resealChunk)
	if err != nil {
		return after, 0, err
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (one row, err error) {
		return one, r.Scan(&one.id, &one.of.Account, &one.of.Webhook, &one.secret, &one.earlier, &one.url, &one.names, &one.values, &one.strict, &one.urls)
	})
	if err != nil {
		return after, 0, err
	}
	for _, one := range list {
		after = one.id
		secret, changed, err := a.secrets.Reseal(before, one.secret, one.of, one.strict)
		for i, stored := range one.earlier {
			if err != nil || stored == nil {
				continue
			}
			text, other, opened := a.secrets.Reseal(before, *stored, one.of, one.strict)
			one.earlier[i], changed, err = &text, changed || other, opened
		}
		address := one.url
		if err == nil {
			var other bool
			address, other, err = a.secrets.ResealURL(before, one.url, one.of, one.urls)
			changed = changed || other
		}
		for i, name := range one.names {
			if err != nil {
				break
			}
			var other bool
			one.values[i], other, err = a.secrets.Reseal(before, one.values[i], one.of.Header(one.url, name), one.strict)
			changed = changed || other
		}
		switch {
		case err != nil:
			found.Unreadable = append(found.Unreadable, one.of.Account+"/"+one.of.Webhook)
		case !changed:
			found.Already++
		default:
			if _, err := tx.Exec(ctx, resealSQL, one.id, secret, one.earlier, address, one.values); err != nil {
				return after, 0, err
			}
			found.Sealed++
		}
	}
	return after, len(list), nil
}

const (
	resealColumnsNextSQL = `
		SELECT account, columns FROM walhook.account_column WHERE account > $1 ORDER BY account LIMIT $2 FOR NO KEY UPDATE`

	resealColumnsSQL = `UPDATE walhook.account_column SET columns = $2 WHERE account = $1`
)

// resealColumnsTx encrypts what is kept of the next accounts under the present
// key. It says which account was the last, "" after all of them.
func (a *Admin) resealColumnsTx(ctx context.Context, tx pgx.Tx, before seal.Sealer, after string, found *Resealed) (last string, err error) {
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
		columns, changed, err := a.secrets.ResealColumns(before, one.account, one.columns)
		if err != nil {
			found.Unreadable = append(found.Unreadable, one.account+"/its columns")
			continue
		}
		if changed {
			if _, err := tx.Exec(ctx, resealColumnsSQL, one.account, columns); err != nil {
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

// sampledSecrets is how many secrets of each end tell whether the key is the right one.
const sampledSecrets = 50

// The newest and the oldest: a reseal that was interrupted has encrypted the oldest.
const sampleSecretsSQL = `
	SELECT account, webhook, secret, ` + seal.StrictSQL + `, coalesce((SELECT key_id FROM walhook.sealing), '') FROM (
		(SELECT * FROM walhook.endpoint WHERE deleted_at IS NULL AND state = 'active' ORDER BY id DESC LIMIT $1)
		UNION ALL
		(SELECT * FROM walhook.endpoint WHERE deleted_at IS NULL AND state = 'active' ORDER BY id LIMIT $1)
	) AS endpoint`

// ErrWrongKey says that no stored secret can be decrypted.
var ErrWrongKey = errors.New("no stored signing secret can be decrypted: --secret-key is not the key that encrypted them")

// CheckKey says whether the secret key is of any use: nil, or [ErrWrongKey] when
// none of the newest and oldest secrets can be decrypted, unless it is known to be the key.
// One that is damaged is no reason.
func (a *Admin) CheckKey(ctx context.Context) error {
	rows, err := a.pool.Query(ctx, sampleSecretsSQL, sampledSecrets)
	if err != nil {
		return fmt.Errorf("read the stored secrets: %w", err)
	}
	var of seal.Holder
	var secret, keyID string
	var strict bool
	good, bad := 0, 0
	_, err = pgx.ForEachRow(rows, []any{&of.Account, &of.Webhook, &secret, &strict, &keyID}, func() error {
		if _, err := a.secrets.OpenAll(of, strict, secret, nil); err != nil {
			bad++
		} else {
			good++
		}
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("read the stored secrets: %w", err)
	case bad > 0 && good == 0 && (keyID == "" || keyID != a.secrets.KeyID()):
		return ErrWrongKey
	}
	return nil
}
