package outbox

import (
	"context"
	"fmt"
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

const (
	ownSecretSQL = `SELECT own_secret FROM walhook.endpoint WHERE id = $1`

	rotateSQL = `
		UPDATE walhook.endpoint SET secret = $2,
			previous_secret = CASE WHEN $3::interval > interval '0' THEN secret END,
			previous_until = CASE WHEN $3::interval > interval '0' THEN clock_timestamp() + $3::interval END,
			revision = revision + 1, changed_at = clock_timestamp()
		WHERE id = $1 RETURNING previous_until`

	// Senders learn of it as of any change of an endpoint.
	wipeSecretsSQL = `
		UPDATE walhook.endpoint SET previous_secret = NULL, previous_until = NULL,
			revision = revision + 1, changed_at = clock_timestamp()
		WHERE id IN (
			SELECT id FROM walhook.endpoint WHERE previous_until <= clock_timestamp()
			ORDER BY account COLLATE "C", id FOR NO KEY UPDATE)`
)

// RotateSecret gives an account's endpoint a new secret, and answers it. The
// one before signs too until the instant that is answered, after overlap; it
// ends at once when overlap is zero. [ErrNoEndpoint] when there is none; a
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
	_, err = s.operate(ctx, by, account, webhook, func(tx pgx.Tx, e EndpointInfo) (EndpointInfo, error) {
		var own bool
		if err := tx.QueryRow(ctx, ownSecretSQL, e.ID).Scan(&own); err != nil {
			return e, err
		}
		if own {
			return e, &StateError{e, "its secret is the one in the account table's column: change it there, which is followed by itself"}
		}
		var ends *time.Time
		err := tx.QueryRow(ctx, rotateSQL, e.ID, s.secrets.seal(secret, holder{account, webhook}), overlap).Scan(&ends)
		until = zeroTime(ends)
		return e, err
	})
	if err != nil {
		return "", time.Time{}, err
	}
	return secret, until, nil
}

// wipeSecrets removes the previous secrets whose time is over.
func (s *Store) wipeSecrets(ctx context.Context) error {
	tag, err := s.pool.Exec(ctx, wipeSecretsSQL)
	if err != nil {
		return fmt.Errorf("remove previous secrets whose time is over: %w", err)
	}
	if n := tag.RowsAffected(); n > 0 {
		s.log.Info("previous secrets are over", zap.Int64("endpoints", n))
	}
	return nil
}

// openSecrets decrypts an endpoint's secrets, the newest first. previous may be
// nil, and is left out when it is the same. With an error it answers those that
// it could decrypt.
func (s *Store) openSecrets(of holder, strict bool, secret string, previous *string) ([]string, error) {
	opened, err := s.secrets.open(secret, of, strict)
	if err != nil {
		return nil, fmt.Errorf("secret of account %s: %w", of.account, err)
	}
	secrets := []string{opened}
	if previous == nil {
		return secrets, nil
	}
	before, err := s.secrets.open(*previous, of, strict)
	if err != nil {
		return secrets, fmt.Errorf("previous secret of account %s, which signs too until its time is over: %w", of.account, err)
	}
	if before != opened {
		secrets = append(secrets, before)
	}
	return secrets, nil
}
