package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"walhook/schemas/catalog"
)

const (
	// maintainEvery is how often partitions are made ahead and old ones dropped.
	maintainEvery = 10 * time.Minute

	// expireEvery is how often it is looked whether the senders have made dead
	// letters of what is past retention.
	expireEvery = 30 * time.Second
)

// Maintain makes partitions ahead of their use, drops those whose contents are
// older than retention, wipes previous secrets whose time is over and forgets
// answers after [OnceFor], until ctx ends. Any number of processes may run it; one at a time works. A fault is
// logged and tried again: the partitions ahead are there to give it time.
func (s *Store) Maintain(ctx context.Context) error {
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { s.on(s.pools.upkeep).endSecrets(ctx) })
	for {
		wait, err := maintainEvery, s.maintainOnce(ctx)
		if err == nil || errors.Is(err, errUndelivered) {
			s.metrics.maintained.SetToCurrentTime()
		}
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, errUndelivered):
			wait = expireEvery
			s.log.Info("partition of the event log is past retention and kept for now", zap.Duration("retry_in", wait), zap.Error(err))
		case err != nil:
			s.log.Warn("maintenance of the outbox did not finish, retrying", zap.Duration("retry_in", wait), zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (s *Store) maintainOnce(ctx context.Context) error {
	s = s.on(s.pools.upkeep)
	if err := s.step(ctx, "partitions", s.MakePartitions(ctx)); err != nil {
		return err
	}
	if err := s.step(ctx, "previous secrets", s.wipeSecrets(ctx)); err != nil {
		return err
	}
	if err := s.step(ctx, "answers", s.forgetAnswers(ctx)); err != nil {
		return err
	}
	if err := s.step(ctx, "portal", s.forgetPortal(ctx)); err != nil {
		return err
	}
	if err := s.step(ctx, "audit", s.forgetAudit(ctx)); err != nil {
		return err
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var mine bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", retentionLock).Scan(&mine); err != nil || !mine {
		return err
	}
	// The timeout keeps others from queueing behind a lock that cannot be had. It
	// goes with the session, and so would our own lock, if the server did not
	// take its time to notice.
	defer func() {
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), time.Second, errors.New("end maintenance"))
		defer cancel()
		_, _ = conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", retentionLock)
		_ = conn.Conn().Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "SET lock_timeout = '2s'"); err != nil {
		return err
	}
	return s.retain(ctx, conn)
}

// step is what a step of maintenance means for the others: one that fails for its
// data is set aside, and they are made.
func (s *Store) step(ctx context.Context, name string, err error) error {
	if err != nil && isReadFault(err) {
		s.setAside(ctx, loopMaintain, name, 0, asideUnstorable, err)
		return nil
	}
	if err == nil {
		s.wellAgain(ctx, loopMaintain, name)
	}
	return err
}

// retentionLock lets one process at a time drop what is too old.
const retentionLock = 0x77_61_6c_03

const (
	// The partitions of a table, the oldest first, and how each is detached: a
	// detach may have been interrupted, before its end or before the drop.
	partitionsSQL = `
		SELECT c.relname, substring(c.relname FROM '\d+$'),
			CASE WHEN i.inhrelid IS NULL THEN '' WHEN i.inhdetachpending THEN 'FINALIZE' ELSE 'CONCURRENTLY' END
		FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
		WHERE c.relnamespace = 'walhook'::regnamespace AND c.relkind = 'r' AND c.relname ~ ('^' || $1 || '_\d+$')
		ORDER BY 2`

	newestEventSQL = `SELECT appended_at FROM walhook.event WHERE id >= $1 AND id < $2 ORDER BY id DESC LIMIT 1`
	oldestEventSQL = `SELECT appended_at FROM walhook.event ORDER BY id LIMIT 1`

	newestPositionSQL = `SELECT stored_at FROM walhook.position ORDER BY id DESC LIMIT 1`

	forgetDeletedSQL = `DELETE FROM walhook.owner WHERE deleted_at < statement_timestamp() - $1::interval`

	forgetAccountsSQL = `DELETE FROM walhook.ended_account WHERE ended_at < statement_timestamp() - $1::interval`

	forgetDeletedColumnsSQL = `DELETE FROM walhook.account_column WHERE deleted_at < statement_timestamp() - $1::interval`
)

// retain drops the partitions that are past retention. A partition of the event log
// stays until nothing in it is undelivered (errUndelivered), and so do the
// attempts that tell what of it was delivered.
func (s *Store) retain(ctx context.Context, conn *pgxpool.Conn) error {
	undelivered := s.step(ctx, "log", s.dropEventPartitions(ctx, conn))
	if undelivered != nil && !errors.Is(undelivered, errUndelivered) {
		return undelivered
	}
	cutoff := time.Now().Add(-s.cfg.Retention)
	var oldest, position time.Time
	err := conn.QueryRow(ctx, oldestEventSQL).Scan(&oldest)
	if err == nil && oldest.Before(cutoff) {
		cutoff = oldest
	} else if err != nil && !isNoRows(err) {
		return s.step(ctx, "oldest event", err)
	}
	err = conn.QueryRow(ctx, newestPositionSQL).Scan(&position)
	if err != nil && !isNoRows(err) {
		return s.step(ctx, "newest position", err)
	}
	for _, table := range dailyTables() {
		limit := cutoff
		if table == "position" && position.Before(limit) {
			limit = position // the newest position is never dropped
		}
		if err := s.step(ctx, table, s.dropDailyPartitions(ctx, conn, table, limit)); err != nil {
			return err
		}
	}
	if err := s.step(ctx, "owners of ended schemas", s.forgetEndedSchemas(ctx, conn)); err != nil {
		return err
	}
	for i, forget := range []string{forgetDeletedSQL, forgetDeletedColumnsSQL, forgetDaysSQL, forgetRequestsSQL, forgetResyncsSQL, markForgottenSQL, forgetWebhooksSQL, forgetTheirLanesSQL, forgetAsideSQL, forgetAccountsSQL} {
		_, err := conn.Exec(ctx, forget, s.cfg.Retention)
		if err := s.step(ctx, fmt.Sprintf("expired events, %d", i+1), err); err != nil {
			return err
		}
	}
	return undelivered
}

const (
	catalogRowInForceSQL = `SELECT id, content FROM walhook.catalog WHERE state = 'in_force'`

	// One look into the index for each schema.
	ownedSchemasSQL = `
		WITH RECURSIVE found (schema) AS (
			SELECT min(schema) FROM walhook.owner
			UNION ALL
			SELECT (SELECT min(o.schema) FROM walhook.owner o WHERE o.schema > f.schema) FROM found f WHERE f.schema IS NOT NULL
		)
		SELECT schema FROM found WHERE schema IS NOT NULL`

	// The lock on the catalog lets no other one come into force meanwhile, in which the
	// schema may begin again.
	forgetSchemaSQL = `
		WITH in_force AS MATERIALIZED (SELECT FROM walhook.catalog WHERE id = $1 AND state = 'in_force' FOR SHARE SKIP LOCKED)
		DELETE FROM walhook.owner WHERE EXISTS (SELECT FROM in_force)
			AND ctid = ANY (ARRAY(SELECT ctid FROM walhook.owner WHERE schema = $2 ORDER BY key LIMIT $3 FOR UPDATE SKIP LOCKED))`

	// forgetChunk is how many rows one transaction deletes.
	forgetChunk = 5000
)

// forgetEndedSchemas deletes the owners of schemas that the catalog in force does not have.
func (s *Store) forgetEndedSchemas(ctx context.Context, conn *pgxpool.Conn) error {
	var row int64
	var content []byte
	err := conn.QueryRow(ctx, catalogRowInForceSQL).Scan(&row, &content)
	if isNoRows(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the catalog in force: %w", err)
	}
	inForce, err := catalog.ParseStored(content)
	if err != nil {
		return nil // a publisher says so
	}
	names, err := collect[string](conn.Query(ctx, ownedSchemasSQL))
	if err != nil {
		return fmt.Errorf("list the schemas with owners: %w", err)
	}
	for _, name := range names {
		if inForce.Schema(name) != nil {
			continue
		}
		for n := int64(forgetChunk); n == forgetChunk; {
			tag, err := conn.Exec(ctx, forgetSchemaSQL, row, name, forgetChunk)
			if err != nil {
				return fmt.Errorf("forget the owners of %s: %w", name, err)
			}
			n = tag.RowsAffected()
		}
	}
	return nil
}

// OnceFor is how long the answer to a request with an Idempotency-Key is remembered.
const OnceFor = 24 * time.Hour

const forgetOnceSQL = `DELETE FROM walhook.idempotency WHERE made_at <= statement_timestamp() - $1::interval`

// forgetAnswers removes what is remembered no more.
func (s *Store) forgetAnswers(ctx context.Context) error {
	if _, err := s.pool.Exec(ctx, forgetOnceSQL, OnceFor); err != nil {
		return fmt.Errorf("remove expired answers: %w", err)
	}
	return nil
}

// Senders learn of it as of any change of an endpoint.
const wipeSecretsSQL = `
	UPDATE walhook.endpoint e SET
		previous_secret = CASE WHEN previous_until > now() THEN previous_secret END,
		previous_until = CASE WHEN previous_until > now() THEN previous_until END,
		older_secrets = ARRAY(SELECT o.secret FROM unnest(older_secrets, older_until) WITH ORDINALITY AS o(secret, until, place) WHERE o.until > now() ORDER BY place),
		older_until = ARRAY(SELECT o.until FROM unnest(older_until) WITH ORDINALITY AS o(until, place) WHERE o.until > now() ORDER BY place),
		revision = ` + NextRevisionSQL + `, changed_at = clock_timestamp()
	WHERE id IN (
		SELECT id FROM walhook.endpoint WHERE previous_until <= now()
			OR older_until <> '{}' AND (SELECT min(u) FROM unnest(older_until) u) <= now()
		ORDER BY account COLLATE "C", id FOR NO KEY UPDATE)`

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

// What was deleted goes when nothing that was kept is of it any more.
const (
	// A publisher that has not followed the webhooks up to these learns that they may be
	// gone. It is committed before any of them goes.
	markForgottenSQL = `
		UPDATE walhook.webhooks_version v SET forgotten = g.newest
		FROM (SELECT max(changed_in) AS newest FROM walhook.endpoint WHERE deleted_at < statement_timestamp() - $1::interval) AS g
		WHERE g.newest > v.forgotten`

	forgetTheirLanesSQL = `
		DELETE FROM walhook.lane l
		WHERE saved_at < statement_timestamp() - $1::interval AND NOT EXISTS (SELECT FROM walhook.endpoint p WHERE p.id = l.endpoint)`
)

var forgetWebhooksSQL = `
		DELETE FROM walhook.endpoint p
		WHERE deleted_at < statement_timestamp() - $1::interval
			AND changed_in <= (SELECT forgotten FROM walhook.webhooks_version)
			AND (SELECT 1 FROM walhook.event e WHERE ` + OfEndpointSQL("p.id", "0", LastEventID) + ` ORDER BY e.endpoint, e.id LIMIT 1) IS NULL
			AND (SELECT 1 FROM walhook.retry r WHERE r.endpoint = p.id LIMIT 1) IS NULL
			AND (SELECT 1 FROM walhook.dead_letter d WHERE d.endpoint = p.id LIMIT 1) IS NULL`
