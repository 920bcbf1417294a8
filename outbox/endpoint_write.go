package outbox

import (
	"context"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/address"
	"walhook/outbox/route"
	"walhook/outbox/seal"
)

// accountsLock is held alone while accounts begin, end or are held, and shared
// while tokens and webhooks are made. So nothing is made beside the end of its
// account, nor beside a hold. Whoever takes it takes it before any endpoint.
const accountsLock = 0x77_61_6c_07

const (
	lockAccountsSQL  = `SELECT pg_advisory_xact_lock($1)`
	shareAccountsSQL = `SELECT pg_advisory_xact_lock_shared($1)`
)

// LockAccountsTx keeps every account from ending and every hold from coming or
// going until the transaction ends. It comes before any lock on an endpoint.
func LockAccountsTx(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, lockAccountsSQL, accountsLock)
	return err
}

// ShareAccountsTx is LockAccountsTx for a transaction that creates something for an account:
// those do not wait for one another.
func ShareAccountsTx(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, shareAccountsSQL, accountsLock)
	return err
}

const (
	secretChangesSQL = `($2 = 'own' OR $2 = 'none' AND e.own_secret)`

	// The secret before signs for a while too. What the new one is comes
	// after this, and keepSecretSQL after that.
	replaceSecretSQL = `
			older_secrets = CASE WHEN ` + secretChangesSQL + ` THEN ` + seal.OlderSecretsSQL + ` ELSE e.older_secrets END,
			older_until = CASE WHEN ` + secretChangesSQL + ` THEN ` + seal.OlderUntilSQL + ` ELSE e.older_until END,
			previous_secret = CASE WHEN ` + secretChangesSQL + ` THEN e.secret ELSE e.previous_secret END,
			previous_until = CASE WHEN ` + secretChangesSQL + ` THEN clock_timestamp() + $3::interval ELSE e.previous_until END,
			own_secret = CASE WHEN ` + secretChangesSQL + ` THEN $2 = 'own' ELSE e.own_secret END,
			secret = CASE WHEN ` + secretChangesSQL + ` THEN `

	keepSecretSQL = ` ELSE e.secret END`

	// The writes of one endpoint; their first four arguments are the same.

	// OrderingOfSQL is the ordering of the account $1, which each webhook of it has.
	OrderingOfSQL = `coalesce((SELECT o.ordering FROM walhook.account_ordering o WHERE o.account = $1), 'record')`

	// A feed that starts again keeps the account's secret and settings.
	writeEndpointSQL = `
		INSERT INTO walhook.endpoint AS e (account, own_secret, secret, url, state, reason, feed_from, ended_at, ordering)
		VALUES ($1, $2 = 'own', $4, nullif($5, ''), $6, $7, $8, CASE WHEN $9 THEN clock_timestamp() END, ` + OrderingOfSQL + `)
		ON CONFLICT (account, webhook) DO UPDATE SET
			url = excluded.url, ` + urlStateSQL + `, ` + replaceSecretSQL + `excluded.secret` + keepSecretSQL + `,
			feed_from = greatest(e.feed_from, excluded.feed_from),
			ended_at = excluded.ended_at,
			revision = e.revision + (e.revision < 9223372036854775807)::int,
			changed_at = clock_timestamp()
		RETURNING id, revision`

	// Leaves the URL and the state as they are: a disabled endpoint stays held,
	// also when its account is gone.
	amendEndpointSQL = `
		UPDATE walhook.endpoint e SET ` + replaceSecretSQL + `$4` + keepSecretSQL + `,
			ended_at = CASE WHEN $5 THEN clock_timestamp() ELSE ended_at END,
			revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE account = $1 AND webhook = 'account' RETURNING id, revision`

	// In the order in which every transaction locks several endpoints.
	lockAccountSQL = `SELECT FROM walhook.endpoint WHERE account = $1 ORDER BY id FOR NO KEY UPDATE`

	// The account's webhooks end with it, also those that it had deleted: what is
	// kept of them is not the next account's.
	endWebhooksSQL = `
		WITH noted AS (INSERT INTO walhook.ended_account (account) VALUES ($1) ON CONFLICT (account) DO UPDATE SET ended_at = clock_timestamp()),
		forgotten AS (DELETE FROM walhook.account_ordering WHERE account = $1)
		UPDATE walhook.endpoint SET ended_at = clock_timestamp(), revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE account = $1 AND webhook <> 'account' AND ended_at IS NULL`

	// Another account of the same id begins: nothing of the one before is its
	// own. The endpoint of that one still delivers what was appended, under
	// another name.
	beginAccountSQL = `
		WITH forgotten AS (DELETE FROM walhook.ended_account WHERE account = $1),
		former AS (DELETE FROM walhook.account_ordering WHERE account = $1),
		webhooks AS (
			UPDATE walhook.endpoint SET ` + DeletedSQL + `$2, feed_from = $3, revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
			WHERE account = $1 AND webhook <> 'account' AND deleted_at IS NULL AND ended_at IS NOT NULL)
		UPDATE walhook.endpoint SET webhook = 'ended-' || id, deleted_at = clock_timestamp(),
			revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE account = $1 AND webhook = 'account' AND ended_at IS NOT NULL`

	// The account table was truncated: accounts without an endpoint have ended too.
	endAllTokensSQL = `
		WITH links AS (DELETE FROM walhook.portal_link), sessions AS (DELETE FROM walhook.portal_session WHERE NOT operator)
		DELETE FROM walhook.token`
	// A link that the token of an account above made, and the session of one, end when that
	// account is not above any more, and stay so when it is again. Without links and sessions
	// of such tokens this reads two small tables; parents change rarely.
	endMovedPortalSQL = `
		WITH links AS (DELETE FROM walhook.portal_link p WHERE ` + notAboveAnyMoreSQL + `)
		DELETE FROM walhook.portal_session p WHERE NOT operator AND ` + notAboveAnyMoreSQL
	notAboveAnyMoreSQL = `token <> '' AND token_account <> account AND NOT EXISTS (
			WITH RECURSIVE above AS (
				SELECT a.parent FROM walhook.account a WHERE a.id = p.account AND a.ended_in IS NULL
				UNION
				SELECT a.parent FROM walhook.account a JOIN above ON a.id = above.parent WHERE a.ended_in IS NULL)
			SELECT FROM above WHERE parent = p.token_account)`

	noteAllSQL = `
		WITH forgotten AS (DELETE FROM walhook.account_ordering)
		INSERT INTO walhook.ended_account (account)
		SELECT account FROM walhook.endpoint WHERE deleted_at IS NULL AND account <> '' UNION SELECT account FROM walhook.token
		ON CONFLICT DO NOTHING`
	endAllSQL = `
		UPDATE walhook.endpoint SET ended_at = clock_timestamp(), revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE ended_at IS NULL AND account <> ''`
)

// queueEndpoint writes one endpoint; it learns id and revision before the events
// that carry them are written. held learns which other endpoints a hold follows to,
// with its reason.
func (s *Store) queueEndpoint(b *pgx.Batch, w *route.EndpointWrite, held map[int64]string) {
	account := w.Endpoint.Account
	if w.Begins || w.Ended {
		b.Queue(lockAccountSQL, account)
	}
	if w.Begins {
		b.Queue(beginAccountSQL, account, reasonEnded, int64(math.MaxInt64))
	}
	if w.Ended {
		b.Queue(endWebhooksSQL, account)
	}
	learn := func(row pgx.Row) error {
		err := row.Scan(&w.Endpoint.ID, &w.Endpoint.Revision)
		if isNoRows(err) && w.Ended {
			return nil // it never had one
		}
		return err
	}
	secret := w.SecretText
	if w.Secret != route.SecretOwn {
		secret = seal.NewSecret()
	}
	args := []any{account, string(w.Secret), secretOverlap, s.secrets.Seal(secret, seal.Holder{Account: account, Webhook: AccountWebhook})}
	if w.Change != route.URLKept {
		state, reason := stateOfChange(w)
		args = append(args, s.secrets.SealURL(w.URL, seal.Holder{Account: account, Webhook: AccountWebhook}), string(state), reason, w.FeedFrom, w.Ended)
		b.Queue(writeEndpointSQL, args...).QueryRow(learn)
		if w.Change == route.URLSet {
			QueueURLSet(b, account, AccountWebhook)
		}
		host := address.HostOf(w.URL)
		b.Queue(holdURLSQL, account, host)
		b.Queue(followURLSQL, account, host).Query(func(rows pgx.Rows) error {
			var id int64
			var url, reason string
			_, err := pgx.ForEachRow(rows, []any{&id, &url, &reason}, func() error {
				if address.HostOf(url) == host {
					held[id] = reason
				}
				return nil
			})
			return err
		})
		return
	}
	if w.Ended || w.Secret != route.SecretKept {
		b.Queue(amendEndpointSQL, append(args, w.Ended)...).QueryRow(learn)
	}
}

// secretOverlap is how long the previous secret signs too, after the one in
// the account's column changed.
const secretOverlap = 24 * time.Hour
