package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"walhook/outbox"
	"walhook/outbox/seal"
)

// maxSecretOverlap bounds what an operator may ask for: a secret that leaked
// is of no use for long.
const maxSecretOverlap = 30 * 24 * time.Hour

// MaxSecrets is how many secrets of an endpoint sign at once: each is a signature
// in a header that receivers bound.
const MaxSecrets = 10

// ErrTooManySecrets says that an endpoint has [MaxSecrets] already.
var ErrTooManySecrets = fmt.Errorf("%d secrets sign at present, which is the limit", MaxSecrets)

const (
	ownSecretSQL = `SELECT own_secret FROM walhook.endpoint WHERE id = $1`

	countEarlierSQL = `
		SELECT cardinality(` + seal.EarlierSecretsSQL + `), coalesce((SELECT min(l.until) FROM ` + seal.EarlierSQL + ` l), clock_timestamp())
		FROM walhook.endpoint e WHERE id = $1`

	rotateSQL = `
		UPDATE walhook.endpoint e SET secret = $2,
			older_secrets = CASE WHEN $3::interval > interval '0' THEN ` + seal.OlderSecretsSQL + ` ELSE '{}' END,
			older_until = CASE WHEN $3::interval > interval '0' THEN ` + seal.OlderUntilSQL + ` ELSE '{}' END,
			previous_secret = CASE WHEN $3::interval > interval '0' THEN secret END,
			previous_until = CASE WHEN $3::interval > interval '0' THEN clock_timestamp() + $3::interval END,
			ended_secret_at = CASE WHEN $3::interval = interval '0' THEN clock_timestamp() ELSE ended_secret_at END,
			revision = ` + outbox.NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE id = $1 RETURNING previous_until, revision`

	revisionSQL = `SELECT id, revision FROM walhook.endpoint WHERE account = $1 AND webhook = $2 AND deleted_at IS NULL`

	// Nobody sends to an endpoint whose shard no living sender holds; whoever takes
	// it reads what is stored then.
	endedSQL = `
		SELECT e.confirmed_revision >= $2 OR NOT EXISTS (
			SELECT FROM walhook.shard s JOIN walhook.sender n ON n.id = s.sender WHERE s.id = e.id % $3 AND n.lease_until > clock_timestamp())
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
// all the same. [ErrTooManySecrets], [ErrNoEndpoint] when there is none,
// [ErrAccountEnded] when its account ended; a [*StateError] when the secret is the one in the account's own column.
func (a *Admin) RotateSecret(ctx context.Context, account string, overlap time.Duration) (secret string, until time.Time, err error) {
	made, err := a.RotateWebhookSecret(ctx, Caller{}, account, outbox.AccountWebhook, overlap, Once{}, nil)
	return made.Secret, made.Until, err
}

// Rotated is what a rotation made.
type Rotated struct {
	Secret string
	Until  time.Time // until when the secret before it signs; zero if that ended
	// Unusable says that the secret before it can sign nothing, and has no overlap.
	Unusable bool
}

// RotateWebhookSecret is RotateSecret for one of an account's webhooks, by a
// caller: [ErrCallerGone] when that may not. With a key in once, answer writes what is
// answered, and the errors are those of [Admin.CreateWebhook] with a key, too.
func (a *Admin) RotateWebhookSecret(ctx context.Context, by Caller, account, webhook string, overlap time.Duration, once Once, answer func(Rotated) ([]byte, error)) (made Rotated, err error) {
	if overlap < 0 || overlap > maxSecretOverlap {
		return Rotated{}, fmt.Errorf("overlap %s: want 0 to %s", overlap, maxSecretOverlap)
	}
	made.Secret = seal.NewSecret()
	var endpoint, revision int64
	act := &Act{Action: actSecretRotated, Detail: "overlap " + overlap.String()}
	_, err = a.operateOnce(ctx, by, account, webhook, act, once, func(tx pgx.Tx, e EndpointInfo) (EndpointInfo, []byte, error) {
		if err := mayRotateTx(ctx, tx, e, overlap); err != nil {
			return e, nil, err
		}
		var ends *time.Time
		err := tx.QueryRow(ctx, rotateSQL, e.ID, a.secrets.Seal(made.Secret, seal.Holder{Account: account, Webhook: webhook}), overlap).Scan(&ends, &revision)
		if err != nil {
			return e, nil, err
		}
		made.Until, endpoint = *cmp.Or(ends, new(time.Time)), e.ID
		if _, earlier, err := a.webhookSecrets(ctx, tx, account, webhook); errors.Is(err, ErrUnusableSecret) && len(earlier) == 0 {
			made.Until, made.Unusable = time.Time{}, true
		}
		if answer == nil {
			return e, nil, nil
		}
		text, err := answer(made)
		return e, text, err
	})
	if err != nil {
		return Rotated{}, err
	}
	if overlap == 0 {
		err = a.awaitEnd(ctx, endpoint, revision)
	}
	return made, err
}

// mayRotateTx says why an endpoint gets no new secret.
func mayRotateTx(ctx context.Context, tx pgx.Tx, e EndpointInfo, overlap time.Duration) error {
	if !e.EndedAt.IsZero() {
		return ErrAccountEnded
	}
	var own bool
	if err := tx.QueryRow(ctx, ownSecretSQL, e.ID).Scan(&own); err != nil {
		return err
	}
	if own {
		return &StateError{e, "its secret is in the account table's column: change it there, and walhook follows by itself"}
	}
	var earlier int
	var free time.Time
	if err := tx.QueryRow(ctx, countEarlierSQL, e.ID).Scan(&earlier, &free); err != nil {
		return err
	}
	if overlap > 0 && earlier >= MaxSecrets-1 {
		return &StateError{e, fmt.Sprintf("%v: wait until %s, when the first of them expires, or expire all of them at once with an overlap of 0", ErrTooManySecrets, free.UTC().Format(time.RFC3339))}
	}
	return nil
}

// AwaitSecretEnd waits until the sender of a webhook knows its present secrets, as
// [Admin.RotateSecret] does without an overlap: [ErrNotConfirmed] where it does not say so.
func (a *Admin) AwaitSecretEnd(ctx context.Context, account, webhook string) error {
	var endpoint, revision int64
	err := a.pool.QueryRow(ctx, revisionSQL, account, webhook).Scan(&endpoint, &revision)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // nothing is sent to it any more
	}
	if err != nil {
		return fmt.Errorf("look a webhook up: %w", err)
	}
	return a.awaitEnd(ctx, endpoint, revision)
}

// ErrNotConfirmed says that a sender did not say that it knows of a change.
var ErrNotConfirmed = errors.New("a sender did not confirm in time that the earlier secrets have expired: it may sign with them for some seconds")

// awaitEnd waits until the sender of an endpoint knows a revision of it.
func (a *Admin) awaitEnd(ctx context.Context, endpoint, revision int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, endTimeout, errors.New("wait until a secret has expired"))
	defer cancel()
	for {
		var ended bool
		err := a.pool.QueryRow(ctx, endedSQL, endpoint, revision, outbox.Shards).Scan(&ended)
		switch {
		case errors.Is(err, pgx.ErrNoRows), err == nil && ended:
			return nil
		case err != nil && ctx.Err() == nil:
			a.log.Warn("unknown whether a secret has expired", zap.Int64("endpoint", endpoint), zap.Error(err))
			return ErrNotConfirmed
		}
		select {
		case <-ctx.Done():
			return ErrNotConfirmed
		case <-time.After(endPoll):
		}
	}
}
