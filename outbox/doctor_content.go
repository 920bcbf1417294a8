package outbox

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/schemas"
)

// lookAtContent makes the checks of what the outbox holds.
func (e *examination) lookAtContent(ctx context.Context) {
	for _, check := range []struct {
		id   string
		look func(context.Context) error
	}{
		{checkPartitions, e.lookAtPartitions},
		{checkGaps, e.lookAtGaps},
		{checkSenders, e.lookAtSenders},
		{checkShards, e.lookAtShards},
		{checkSecrets, e.lookAtSecrets},
		{checkDeadRows, e.lookAtDeadRows},
	} {
		if err := check.look(ctx); err != nil {
			e.s.Unseen(e.r, err, check.id)
		}
	}
}

// namedPartitionSQL says whether a partition is there and attached.
const namedPartitionSQL = `
	SELECT EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'walhook' AND c.relname = $1)`

// lookAtPartitions looks for the partitions in use and the next ones.
func (e *examination) lookAtPartitions(ctx context.Context) error {
	var now time.Time
	var nextID int64
	if err := e.s.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
		return err
	}
	if err := e.s.QueryRow(ctx, currentEventIDSQL).Scan(&nextID); err != nil {
		return err
	}
	for ahead := range 2 { // maintenance makes the second one ahead within minutes
		names := []string{fmt.Sprintf("event_%06d", eventPartition(nextID)+int64(ahead))}
		for _, table := range dailyTables() {
			names = append(names, table+"_"+now.UTC().AddDate(0, 0, ahead).Format(dayFormat))
		}
		for _, name := range names {
			var there bool
			if err := e.s.QueryRow(ctx, namedPartitionSQL, name).Scan(&there); err != nil {
				return err
			}
			switch {
			case there:
			case ahead == 0:
				e.r.Fail(checkPartitions, doctor.Run("walhook setup"), "partition walhook.%s is in use and missing: nothing can be stored", name)
			default:
				e.r.Warn(checkPartitions, doctor.Run("walhook setup"), "partition walhook.%s is needed next and missing", name)
			}
		}
	}
	e.r.OK(checkPartitions, "those in use and the next ones are there; the log is at event %d", nextID)
	return nil
}

const openGapsSQL = `
	SELECT found_at, from_lsn::text, coalesce(to_lsn::text, 'an unknown position'), reason FROM walhook.gap
	WHERE accepted_at IS NULL ORDER BY id LIMIT 5`

func (e *examination) lookAtGaps(ctx context.Context) error {
	rows, err := e.s.Query(ctx, openGapsSQL)
	if err != nil {
		return err
	}
	var at time.Time
	var from, to, reason string
	_, err = pgx.ForEachRow(rows, []any{&at, &from, &to, &reason}, func() error {
		e.r.Fail(checkGaps, doctor.Steps{{Kind: doctor.Command, Text: "walhook setup --accept-gap",
			Note: "find out why first; what was changed in between is not sent"}},
			"found at %s, not accepted: %s; changes between %s and %s may be missing", at.UTC().Format(time.RFC3339), reason, from, to)
		return nil
	})
	e.r.OK(checkGaps, "none that is not accepted")
	return err
}

// staleAfter is how long a lease may be over before somebody should have ended
// it: any running sender does so within a lease.
const staleAfter = 30 * time.Second

const (
	staleSendersSQL = `
		SELECT s.name, extract(epoch FROM clock_timestamp() - s.lease_until)::float8, count(h.id)
		FROM walhook.sender s LEFT JOIN walhook.shard h ON h.sender = s.id
		WHERE s.lease_until < clock_timestamp() - $1::interval GROUP BY s.id ORDER BY s.id LIMIT 5`

	countSendersNowSQL = `
		SELECT count(*) FILTER (WHERE lease_until > clock_timestamp()), coalesce(string_agg(name, ', '), '') FROM walhook.sender`

	dropStaleSQL = `DELETE FROM walhook.sender WHERE lease_until < clock_timestamp() - interval '30 seconds'`
)

// lookAtSenders tells of senders that ended without giving up what they held,
// and that nobody replaced.
func (e *examination) lookAtSenders(ctx context.Context) error {
	rows, err := e.s.Query(ctx, staleSendersSQL, staleAfter)
	if err != nil {
		return err
	}
	var name string
	var seconds float64
	var shards int
	_, err = pgx.ForEachRow(rows, []any{&name, &seconds, &shards}, func() error {
		e.r.Warn(checkSenders, doctor.Steps{{Kind: doctor.SQL, On: here, Text: dropStaleSQL, Note: "a sender that is started does so by itself"}},
			"sender %s ended without a word, its lease has been over for %s and it still holds %d shards", name,
			(time.Duration(seconds * float64(time.Second))).Round(time.Second), shards)
		return nil
	})
	if err != nil {
		return err
	}
	var n int
	var names string
	if err := e.s.QueryRow(ctx, countSendersNowSQL).Scan(&n, &names); err != nil {
		return err
	}
	e.r.OK(checkSenders, "%d running %s", n, names)
	return nil
}

const shardsSQL = `
	SELECT count(*), count(*) FILTER (WHERE s.lease_until > clock_timestamp()),
		(SELECT count(*) FROM walhook.sender WHERE lease_until > clock_timestamp())
	FROM walhook.shard h LEFT JOIN walhook.sender s ON s.id = h.sender`

// secondLook is how long shards that are dealt out may be without an owner.
const secondLook = 3 * time.Second

// lookAtShards tells of shards that nobody sends from: while senders run, a
// moment's look may fall between two of them, so it looks twice; while none
// runs, it matters once something waits.
func (e *examination) lookAtShards(ctx context.Context) error {
	var shards, owned, senders int
	read := func() error { return e.s.QueryRow(ctx, shardsSQL).Scan(&shards, &owned, &senders) }
	if err := read(); err != nil {
		return err
	}
	if senders > 0 && owned < shards {
		select {
		case <-time.After(secondLook):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := read(); err != nil {
			return err
		}
	}
	var oldest float64
	err := e.s.QueryRow(ctx, oldestTailSQL, measureLog).Scan(&oldest)
	if err != nil && !isNoRows(err) {
		return err
	}
	waits := err == nil
	run := doctor.Run("walhook run --role sender")
	age := time.Duration(oldest * float64(time.Second)).Round(time.Second)
	switch {
	case shards != Shards:
		e.r.Fail(checkShards, doctor.Ask(here, "", fmt.Sprintf("INSERT INTO walhook.shard (id) SELECT generate_series(0, %d) ON CONFLICT DO NOTHING", Shards-1)),
			"there are %d shards, want %d: the others' endpoints get nothing", shards, Shards)
	case senders > 0 && owned < shards:
		e.r.Warn(checkShards, run, "%d of %d shards have no owner though %d senders run", shards-owned, shards, senders)
	case senders == 0 && waits:
		e.r.Warn(checkShards, run, "no sender runs, and events wait, the oldest for %s", age)
	default:
		e.r.OK(checkShards, "%d of %d have an owner", owned, shards)
	}
	return nil
}

const storedSecretsSQL = `SELECT account, webhook, own_secret, secret FROM walhook.endpoint WHERE deleted_at IS NULL ORDER BY id LIMIT 100000`

// maxRotations is how many commands are spelled out.
const maxRotations = 20

// lookAtSecrets looks at how the endpoints' secrets are stored.
func (e *examination) lookAtSecrets(ctx context.Context) error {
	secrets, err := newSealer(e.cfg.SecretKey)
	if err != nil {
		return err
	}
	rows, err := e.s.Query(ctx, storedSecretsSQL)
	if err != nil {
		return err
	}
	var one secretHolder
	var secret string
	var plain []secretHolder
	locked, total := 0, 0
	_, err = pgx.ForEachRow(rows, []any{&one.account, &one.webhook, &one.own, &secret}, func() error {
		total++
		if _, err := secrets.open(secret); err != nil {
			locked++
		} else if !strings.HasPrefix(secret, sealedPrefix) {
			plain = append(plain, one)
		}
		return nil
	})
	if err != nil {
		return err
	}
	newKey := doctor.Step{Kind: doctor.Setting, Text: "--secret-key=$(head -c 32 /dev/urandom | base64)",
		Note: "of every walhook on this outbox, and keep it: without it the secrets are lost"}
	switch noKey := len(e.cfg.SecretKey) == 0; {
	case locked > 0:
		mend := doctor.Steps{{Kind: doctor.Setting, Text: "--secret-key=KEY", Note: "the key that they were stored under"}}
		e.r.Fail(checkSecrets, mend, "%d of %d secrets are encrypted under a key that is not --secret-key: nothing of theirs can be signed", locked, total)
	case noKey:
		e.r.Warn(checkSecrets, doctor.Steps{newKey}, "%d signing secrets are stored as they are: there is no --secret-key", len(plain))
	case len(plain) > 0:
		e.r.Warn(checkSecrets, rotations(plain), "%d of %d signing secrets were stored before there was a --secret-key, as they are", len(plain), total)
	default:
		e.r.OK(checkSecrets, "%d signing secrets, all encrypted", total)
	}
	return nil
}

// secretHolder is an endpoint that has a secret.
type secretHolder struct {
	account, webhook string
	own              bool // it is the one in the account table's column
}

// rotations store new secrets, under the key that there is now.
func rotations(holders []secretHolder) (mend doctor.Steps) {
	for _, h := range holders[:min(len(holders), maxRotations)] {
		const note = "the account has to be told the new secret; both sign until the overlap ends"
		switch {
		case h.own:
			mend = append(mend, doctor.Step{Kind: doctor.Shell, Text: "# account " + shellWord(h.account) + " changes its secret in its column of the account table"})
		case h.webhook == AccountWebhook:
			mend = append(mend, doctor.Step{Kind: doctor.Command, Text: "walhook endpoints rotate " + shellWord(h.account), Note: note})
		default:
			path := "/v2/accounts/" + url.PathEscape(h.account) + "/webhooks/" + url.PathEscape(h.webhook) + "/secret/rotate"
			mend = append(mend, doctor.Step{Kind: doctor.Shell, Note: note,
				Text: `curl -X POST -H "X-Auth-Token: $WALHOOK_ADMIN_TOKEN" http://127.0.0.1:8480` + shellWord(path)})
		}
	}
	return mend
}

// shellWord quotes an argument for a shell, if it needs that.
func shellWord(word string) string {
	if word != "" && strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./%-") == "" && word[0] != '-' {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// updatedTables are those whose rows are updated and deleted, so that vacuum has
// to keep up with them.
func updatedTables() []string {
	return []string{"lane", "shard", "sender", "retry", "owner", "endpoint", "account", "inbox", "epoch", "source"}
}

const (
	// deadWarned is how many dead rows are too many, where they are also more
	// than the living: autovacuum comes at a fifth of these.
	deadWarned = 20_000

	deadRowsSQL = `
		SELECT s.relname::text, s.n_dead_tup, s.n_live_tup, coalesce(greatest(s.last_vacuum, s.last_autovacuum)::timestamptz(0)::text, 'never'),
			coalesce(c.reloptions::text, '') LIKE '%autovacuum_enabled=%'
		FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid WHERE s.schemaname = 'walhook' AND s.relname = ANY ($1)`
)

func (e *examination) lookAtDeadRows(ctx context.Context) error {
	rows, err := e.s.Query(ctx, deadRowsSQL, updatedTables())
	if err != nil {
		return err
	}
	var table, vacuumed string
	var dead, live, worst int64
	var switched bool
	_, err = pgx.ForEachRow(rows, []any{&table, &dead, &live, &vacuumed, &switched}, func() error {
		worst = max(worst, dead)
		if dead <= max(deadWarned, live) {
			return nil
		}
		mend := doctor.Ask(here, "", "VACUUM walhook."+schemas.QuoteIdent(table))
		if switched {
			mend = slices.Insert(mend, 0, doctor.Ask(here, "", fmt.Sprintf("ALTER TABLE walhook.%s RESET (autovacuum_enabled)", schemas.QuoteIdent(table)))...)
		}
		e.r.Warn(checkDeadRows, mend, "walhook.%s has %d dead rows beside %d living ones, vacuumed %s: vacuum does not keep up", table, dead, live, vacuumed)
		return nil
	})
	e.r.OK(checkDeadRows, "at most %d in one of the tables that are updated", worst)
	return err
}
