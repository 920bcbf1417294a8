package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// secretOverlap is how long the previous secret signs too, after the one in
// the account's column changed.
const secretOverlap = 24 * time.Hour

// maxSecretOverlap bounds what an operator may ask for: a secret that leaked
// is of no use for long.
const maxSecretOverlap = 30 * 24 * time.Hour

// MaxSecrets is how many secrets of an endpoint sign at once: each is a signature
// in a header that receivers bound.
const MaxSecrets = 10

// ErrTooManySecrets says that an endpoint has [MaxSecrets] already.
var ErrTooManySecrets = fmt.Errorf("%d secrets sign at present, which is the limit", MaxSecrets)

const (
	// The secrets of the endpoint e that sign besides the present one, the newest
	// first, and until when.
	earlierSQL = `(SELECT b.secret, b.until, b.place
			FROM unnest(array_prepend(e.previous_secret, e.older_secrets), array_prepend(e.previous_until, e.older_until)) WITH ORDINALITY AS b(secret, until, place)
			WHERE b.until > statement_timestamp() ORDER BY b.place LIMIT 9)`
	earlierSecretsSQL = `ARRAY(SELECT l.secret FROM ` + earlierSQL + ` l ORDER BY l.place)`
	earlierUntilSQL   = `ARRAY(SELECT l.until FROM ` + earlierSQL + ` l ORDER BY l.place)`

	// Those that stay when the present one becomes the previous one. Beyond
	// MaxSecrets the oldest ends.
	olderSecretsSQL = `(` + earlierSecretsSQL + `)[:8]`
	olderUntilSQL   = `(` + earlierUntilSQL + `)[:8]`

	ownSecretSQL = `SELECT own_secret FROM walhook.endpoint WHERE id = $1`

	countEarlierSQL = `
		SELECT cardinality(` + earlierSecretsSQL + `), coalesce((SELECT min(l.until) FROM ` + earlierSQL + ` l), clock_timestamp())
		FROM walhook.endpoint e WHERE id = $1`

	rotateSQL = `
		UPDATE walhook.endpoint e SET secret = $2,
			older_secrets = CASE WHEN $3::interval > interval '0' THEN ` + olderSecretsSQL + ` ELSE '{}' END,
			older_until = CASE WHEN $3::interval > interval '0' THEN ` + olderUntilSQL + ` ELSE '{}' END,
			previous_secret = CASE WHEN $3::interval > interval '0' THEN secret END,
			previous_until = CASE WHEN $3::interval > interval '0' THEN clock_timestamp() + $3::interval END,
			ended_secret_at = CASE WHEN $3::interval = interval '0' THEN clock_timestamp() ELSE ended_secret_at END,
			revision = ` + nextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE id = $1 RETURNING previous_until, revision`

	// Senders learn of it as of any change of an endpoint.
	wipeSecretsSQL = `
		UPDATE walhook.endpoint e SET
			previous_secret = CASE WHEN previous_until > now() THEN previous_secret END,
			previous_until = CASE WHEN previous_until > now() THEN previous_until END,
			older_secrets = ARRAY(SELECT o.secret FROM unnest(older_secrets, older_until) WITH ORDINALITY AS o(secret, until, place) WHERE o.until > now() ORDER BY place),
			older_until = ARRAY(SELECT o.until FROM unnest(older_until) WITH ORDINALITY AS o(until, place) WHERE o.until > now() ORDER BY place),
			revision = ` + nextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE id IN (
			SELECT id FROM walhook.endpoint WHERE previous_until <= now()
				OR older_until <> '{}' AND (SELECT min(u) FROM unnest(older_until) u) <= now()
			ORDER BY account COLLATE "C", id FOR NO KEY UPDATE)`

	// Nobody sends to an endpoint whose shard no living sender holds; whoever takes
	// it reads what is stored then.
	endedSQL = `
		SELECT e.confirmed_revision >= $2 OR NOT EXISTS (
			SELECT FROM walhook.shard s JOIN walhook.sender n ON n.id = s.sender WHERE s.id = e.id % 32 AND n.lease_until > clock_timestamp())
		FROM walhook.endpoint e WHERE e.id = $1`
)

const (
	// endTimeout is more than a lease: a sender that does not answer has none then.
	endTimeout = 12 * time.Second
	endPoll    = 50 * time.Millisecond
)

// RotateSecret gives an account's endpoint a new secret, and answers it. The
// one before signs too until the instant that is answered, after overlap, and those
// before that until theirs. Where overlap is zero all of them end: no attempt that
// begins after the return is signed with them, by whichever process, unless
// [ErrNotConfirmed] says that a sender did not answer; the new secret is in force
// all the same. [ErrTooManySecrets], [ErrNoEndpoint] when there is none; a
// [*StateError] when the secret is the one in the account's own column.
func (s *Store) RotateSecret(ctx context.Context, account string, overlap time.Duration) (secret string, until time.Time, err error) {
	return s.RotateWebhookSecret(ctx, Caller{}, account, AccountWebhook, overlap)
}

// RotateWebhookSecret is RotateSecret for one of an account's webhooks, by a
// caller: [ErrCallerGone] when that may not.
func (s *Store) RotateWebhookSecret(ctx context.Context, by Caller, account, webhook string, overlap time.Duration) (secret string, until time.Time, err error) {
	if overlap < 0 || overlap > maxSecretOverlap {
		return "", time.Time{}, fmt.Errorf("overlap %s: want 0 to %s", overlap, maxSecretOverlap)
	}
	secret = newSecret()
	var endpoint, revision int64
	_, err = s.operate(ctx, by, account, webhook, func(tx pgx.Tx, e EndpointInfo) (EndpointInfo, error) {
		var own bool
		if err := tx.QueryRow(ctx, ownSecretSQL, e.ID).Scan(&own); err != nil {
			return e, err
		}
		if own {
			return e, &StateError{e, "its secret is in the account table's column: change it there, and walhook follows by itself"}
		}
		var earlier int
		var free time.Time
		if err := tx.QueryRow(ctx, countEarlierSQL, e.ID).Scan(&earlier, &free); err != nil {
			return e, err
		}
		if overlap > 0 && earlier >= MaxSecrets-1 {
			return e, &StateError{e, fmt.Sprintf("%v: wait until %s, when the first of them expires, or expire all of them at once with an overlap of 0", ErrTooManySecrets, free.UTC().Format(time.RFC3339))}
		}
		var ends *time.Time
		err := tx.QueryRow(ctx, rotateSQL, e.ID, s.secrets.seal(secret, holder{account, webhook}), overlap).Scan(&ends, &revision)
		until, endpoint = zeroTime(ends), e.ID
		return e, err
	})
	if err != nil {
		return "", time.Time{}, err
	}
	if overlap == 0 {
		err = s.awaitEnd(ctx, endpoint, revision)
	}
	return secret, until, err
}

// ErrNotConfirmed says that a sender did not say that it knows of a change.
var ErrNotConfirmed = errors.New("a sender did not confirm in time that the earlier secrets have expired: it may sign with them for some seconds")

// awaitEnd waits until the sender of an endpoint knows a revision of it.
func (s *Store) awaitEnd(ctx context.Context, endpoint, revision int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, endTimeout, errors.New("wait until a secret has expired"))
	defer cancel()
	for {
		var ended bool
		err := s.pool.QueryRow(ctx, endedSQL, endpoint, revision).Scan(&ended)
		switch {
		case isNoRows(err), err == nil && ended:
			return nil
		case err != nil && ctx.Err() == nil:
			s.log.Warn("unknown whether a secret has expired", zap.Int64("endpoint", endpoint), zap.Error(err))
			return ErrNotConfirmed
		}
		select {
		case <-ctx.Done():
			return ErrNotConfirmed
		case <-time.After(endPoll):
		}
	}
}

const confirmSQL = `
	UPDATE walhook.endpoint e SET confirmed_revision = c.revision FROM unnest($1::bigint[], $2::bigint[]) AS c(id, revision)
	WHERE e.id = c.id AND e.confirmed_revision < c.revision`

// Confirm says that this sender starts no attempt any more by what endpoints were
// before these revisions.
func (s *Session) Confirm(ctx context.Context, known []EndpointRevision) error {
	var ids, revisions []int64
	for _, e := range known {
		if e.Confirm {
			ids, revisions = append(ids, e.ID), append(revisions, e.Revision)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if _, err := s.store.pool.Exec(ctx, confirmSQL, ids, revisions); err != nil {
		return fmt.Errorf("confirm which endpoints changed: %w", err)
	}
	return nil
}

// wipeEvery is how exactly a previous secret ends.
const wipeEvery = 2 * time.Second

// endSecrets removes secrets as their time ends, until ctx ends.
func (s *Store) endSecrets(ctx context.Context) {
	failing := false
	for {
		err := s.wipeSecrets(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			s.log.Warn("removing expired previous secrets failed, retrying", zap.Duration("retry_in", wipeEvery), zap.Error(err))
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-time.After(wipeEvery):
		}
	}
}

// wipeSecrets removes the previous secrets whose time is over.
func (s *Store) wipeSecrets(ctx context.Context) error {
	tag, err := s.pool.Exec(ctx, wipeSecretsSQL)
	if err != nil {
		return fmt.Errorf("remove expired previous secrets: %w", err)
	}
	if n := tag.RowsAffected(); n > 0 {
		s.log.Info("removed expired previous secrets", zap.Int64("endpoints", n))
	}
	return nil
}

// openSecrets decrypts an endpoint's secrets, the newest first. One that came
// before is left out when it is the same. With an error it answers those that it
// could decrypt.
func (s *Store) openSecrets(of holder, strict bool, secret string, earlier []string) ([]string, error) {
	opened, err := s.secrets.open(secret, of, strict)
	if err != nil {
		return nil, fmt.Errorf("secret of account %s: %w", of.account, err)
	}
	secrets := []string{opened}
	var bad error
	for _, one := range earlier {
		before, err := s.secrets.open(one, of, strict)
		if err != nil {
			bad = fmt.Errorf("previous secret of account %s, which also signs until it expires: %w", of.account, err)
		} else if !slices.Contains(secrets, before) {
			secrets = append(secrets, before)
		}
	}
	return secrets, bad
}
