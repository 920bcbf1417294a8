package outbox

import (
	"context"
	"math"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

const (
	assertEpochSQL = `SELECT walhook.assert_epoch($1)`

	// What an operator or the account disabled stays disabled, also through a
	// time without a URL; what walhook did is forgotten with the URL that it was
	// about.
	adoptStateSQL = `
			state = CASE WHEN e.disabled_reason <> '' AND excluded.state = 'active' THEN 'disabled' ELSE excluded.state END,
			disabled_by = CASE WHEN e.disabled_reason <> '' THEN e.disabled_by ELSE '' END,
			reason = CASE WHEN e.disabled_reason <> '' AND excluded.state = 'active' THEN e.disabled_reason ELSE excluded.reason END`

	secretChangesSQL = `($2 = 'own' OR $2 = 'none' AND e.own_secret)`

	// The secret before goes on signing for a while. What the new one is comes
	// after this, and keepSecretSQL after that.
	replaceSecretSQL = `
			older_secrets = CASE WHEN ` + secretChangesSQL + ` THEN ` + olderSecretsSQL + ` ELSE e.older_secrets END,
			older_until = CASE WHEN ` + secretChangesSQL + ` THEN ` + olderUntilSQL + ` ELSE e.older_until END,
			previous_secret = CASE WHEN ` + secretChangesSQL + ` THEN e.secret ELSE e.previous_secret END,
			previous_until = CASE WHEN ` + secretChangesSQL + ` THEN clock_timestamp() + $3::interval ELSE e.previous_until END,
			own_secret = CASE WHEN ` + secretChangesSQL + ` THEN $2 = 'own' ELSE e.own_secret END,
			secret = CASE WHEN ` + secretChangesSQL + ` THEN `

	keepSecretSQL = ` ELSE e.secret END`

	// The writes of one endpoint; their first four arguments are the same.

	// A feed that starts anew keeps the account's secret and settings.
	writeEndpointSQL = `
		INSERT INTO walhook.endpoint AS e (account, own_secret, secret, url, state, reason, feed_from, ended_at)
		VALUES ($1, $2 = 'own', $4, nullif($5, ''), $6, $7, $8, CASE WHEN $9 THEN clock_timestamp() END)
		ON CONFLICT (account, webhook) DO UPDATE SET
			url = excluded.url, ` + adoptStateSQL + `, ` + replaceSecretSQL + `excluded.secret` + keepSecretSQL + `,
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
			revision = ` + nextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE account = $1 AND webhook = 'account' RETURNING id, revision`

	// In the order in which whoever changes several endpoints takes them.
	lockAccountSQL = `SELECT FROM walhook.endpoint WHERE account = $1 ORDER BY id FOR NO KEY UPDATE`

	// The account's webhooks end with it, also those that it had deleted: what is
	// kept of them is not the next account's.
	endWebhooksSQL = `
		WITH noted AS (INSERT INTO walhook.ended_account (account) VALUES ($1) ON CONFLICT (account) DO UPDATE SET ended_at = clock_timestamp())
		UPDATE walhook.endpoint SET ended_at = clock_timestamp(), revision = ` + nextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE account = $1 AND webhook <> 'account' AND ended_at IS NULL`

	// Another account of the same id begins: nothing of the one before is its
	// own. The endpoint of that one goes on to deliver what was appended, under
	// another name.
	beginAccountSQL = `
		WITH forgotten AS (DELETE FROM walhook.ended_account WHERE account = $1),
		webhooks AS (
			UPDATE walhook.endpoint SET deleted_at = clock_timestamp(), url = NULL, state = 'cleared', reason = $2,
				disabled_by = '', disabled_reason = '', feed_from = $3, revision = ` + nextRevisionSQL + `, changed_at = clock_timestamp()
			WHERE account = $1 AND webhook <> 'account' AND deleted_at IS NULL AND ended_at IS NOT NULL)
		UPDATE walhook.endpoint SET webhook = 'ended-' || id, deleted_at = clock_timestamp(),
			revision = ` + nextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE account = $1 AND webhook = 'account' AND ended_at IS NOT NULL`

	endTokensSQL = `DELETE FROM walhook.token WHERE account = ANY ($1)`

	// The account table was truncated: accounts without an endpoint have ended too.
	endAllTokensSQL = `DELETE FROM walhook.token`
	noteAllSQL      = `
		INSERT INTO walhook.ended_account (account)
		SELECT account FROM walhook.endpoint WHERE deleted_at IS NULL UNION SELECT account FROM walhook.token
		ON CONFLICT DO NOTHING`
	endAllSQL = `
		UPDATE walhook.endpoint SET ended_at = clock_timestamp(), revision = ` + nextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE ended_at IS NULL`

	deadTooLargeSQL = `
		INSERT INTO walhook.dead_letter (endpoint, event_id, record, webhook_id, schema, type, committed_at, attempts, reason, size, format)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 'too_large', $8, $9)`

	unroutedSQL = `
		INSERT INTO walhook.unrouted (commit_lsn, ordinal, schema, type, key, reason)
		VALUES ($1::text::pg_lsn, $2, $3, $4, $5, $6)`

	writePositionSQL = `
		INSERT INTO walhook.position (epoch, commit_lsn, ordinal, xid, flush_lsn, next_event_id, messages)
		VALUES ($1, $2::text::pg_lsn, $3, $4, $5::text::pg_lsn, $6, $7)`
)

// append stores what the router made of a batch, with its position, in one
// transaction that another epoch cannot interleave with.
func (s *Store) append(ctx context.Context, epoch, nextID int64, batch schemas.Batch, r *router) error {
	held := map[int64]string{}
	tx := transaction{fence: func(b *pgx.Batch) {
		b.Queue(assertEpochSQL, epoch)
		// In the order in which whoever changes several endpoints takes them.
		slices.SortStableFunc(r.endpoints, func(a, b *endpointWrite) int { return strings.Compare(a.route.account, b.route.account) })
		if len(r.endpoints) > 0 || r.endedAll {
			b.Queue(lockAccountsSQL, accountsLock) // before any endpoint, as whoever makes one does
		}
		if r.endedAll { // before the writes: what begins after it in the batch has not ended
			b.Queue("LOCK TABLE walhook.endpoint IN SHARE ROW EXCLUSIVE MODE")
			b.Queue(noteAllSQL)
			b.Queue(endAllSQL)
		}
		for _, w := range r.endpoints {
			s.queueEndpoint(b, w, held)
		}
	}}
	// An event carries its endpoint's id and revision, which those writes answer.
	few := len(r.endpoints) == 0 && len(r.events) <= fewRows
	if !few {
		tx.copy = func(ctx context.Context, conn *pgx.Conn) error { return s.copyEvents(ctx, conn, r.events) }
	}
	tx.fill = func(b *pgx.Batch) {
		if few {
			s.queueEvents(b, r.events)
		}
		for id, reason := range held {
			b.Queue(holdEndpointSQL, id, reason)
		}
		r.queueRest(b, epoch, nextID, batch)
	}
	return s.run(ctx, tx)
}

// queueRest writes all but the endpoints and the events.
func (r *router) queueRest(b *pgx.Batch, epoch, nextID int64, batch schemas.Batch) {
	enc := r.p.store.encoding
	r.queueTooLarge(b)
	for _, schema := range r.truncated {
		b.Queue(forgetOwnersSQL, schema)
	}
	r.owners.queue(b, enc)
	for _, k := range r.forgotten {
		// As bytes, which every server takes: the key may be what it refuses.
		b.Queue(forgetOwnerSQL, k.schema, []byte(enc.text(k.key)))
	}
	r.queueParents(b, batch.Position)
	if r.endedAll {
		b.Queue(endAllTokensSQL)
		b.Queue(endAllOnceSQL)
	} else if len(r.ended) > 0 {
		b.Queue(endTokensSQL, r.ended)
		b.Queue(endOnceSQL, r.ended)
	}
	r.queueKnown(b)
	r.queueColumns(b)
	r.queueSums(b)
	for _, e := range r.dayEnds {
		e.queue(b)
	}
	for _, u := range r.unrouted {
		u.queue(b, enc)
	}
	b.Queue(writePositionSQL, epoch, batch.Position.Commit.String(), batch.Position.Ordinal, int64(batch.Xid),
		batch.Flush.String(), nextID, !batch.NoMessages)
}

func (r *router) queueTooLarge(b *pgx.Batch) {
	for i := range r.tooLarge {
		e := &r.tooLarge[i]
		b.Queue(deadTooLargeSQL, e.route.endpoint, e.id, r.p.store.encoding.text(e.record), e.webhookID, e.schema, e.typ, e.committedAt, e.size, e.format)
	}
}

// queueEndpoint writes one endpoint; its route learns id and revision before
// the events that carry them are copied. held learns which other endpoints a hold
// follows to, with its reason.
func (s *Store) queueEndpoint(b *pgx.Batch, w *endpointWrite, held map[int64]string) {
	if w.begins || w.ended {
		b.Queue(lockAccountSQL, w.route.account)
	}
	if w.begins {
		b.Queue(beginAccountSQL, w.route.account, reasonEnded, int64(math.MaxInt64))
	}
	if w.ended {
		b.Queue(endWebhooksSQL, w.route.account)
	}
	learn := func(row pgx.Row) error {
		err := row.Scan(&w.route.endpoint, &w.route.revision)
		if isNoRows(err) && w.ended {
			return nil // it never had one
		}
		return err
	}
	secret := w.columnText
	if w.secret != secretOwn {
		secret = newSecret()
	}
	args := []any{w.route.account, string(w.secret), secretOverlap, s.secrets.seal(secret, holder{w.route.account, AccountWebhook})}
	if w.urlSet {
		args = append(args, s.secrets.sealURL(w.url, holder{w.route.account, AccountWebhook}), string(w.state), w.reason, w.feedFrom, w.ended)
		b.Queue(writeEndpointSQL, args...).QueryRow(learn)
		host := HostOf(w.url)
		b.Queue(holdURLSQL, w.route.account, host)
		b.Queue(followURLSQL, w.route.account, host).Query(func(rows pgx.Rows) error {
			var id int64
			var url, reason string
			_, err := pgx.ForEachRow(rows, []any{&id, &url, &reason}, func() error {
				if HostOf(url) == host {
					held[id] = reason
				}
				return nil
			})
			return err
		})
		return
	}
	if w.ended || w.secret != secretKept {
		b.Queue(amendEndpointSQL, append(args, w.ended)...).QueryRow(learn)
	}
}
