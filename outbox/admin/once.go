package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
)

// Once makes a creation happen once (draft-ietf-httpapi-idempotency-key-header):
// whoever sends the same request with the same key again within [OnceFor] gets the
// answer of the first. The zero Once has no key and remembers nothing.
type Once struct {
	Key string
	// Proof is made of what is secret of the caller's token. Without it nobody
	// reads the answer, whoever reads the outbox.
	Proof [sha256.Size]byte
	// Request is what the request means, its path included. Another one with the
	// same key is refused.
	Request []byte
}

func (o Once) isZero() bool { return o.Key == "" }

const (
	// OnceFor is how long an answer is remembered.
	OnceFor = 24 * time.Hour

	// What is remembered at most: of an account's keys and bytes, and of all
	// accounts in units of storage. Beyond that no new key is taken.
	maxOnceKeys  = 1000
	maxOnceBytes = 4 << 20
	onceUnit     = 2 << 10
	maxOnceUnits = 1 << 17
)

var (
	// ErrOnceRunning says that the first request with a key has not ended.
	ErrOnceRunning = errors.New("the first request with this Idempotency-Key is still running")
	// ErrOnceDiffers says that a key was used for another request.
	ErrOnceDiffers = errors.New("the Idempotency-Key was used for another request within the last 24 hours: use a new key for each request")
	// ErrOnceSealed says that the answer to a key cannot be decrypted.
	ErrOnceSealed = errors.New("this Idempotency-Key has created something, but the answer cannot be repeated, because the operator's token or --secret-key has changed since: look it up in the list")
	// ErrOnceFull says that no more keys are remembered.
	ErrOnceFull = errors.New("too many Idempotency-Keys are stored, each for 24 hours: omit the header, or try again later")
)

// AnsweredError is no fault: the request was answered before, by Answer.
type AnsweredError struct{ Answer []byte }

func (*AnsweredError) Error() string { return "the request was answered before" }

const (
	// It goes with the transaction. Whoever does not get it is not the first.
	lockOnceSQL = `SELECT pg_try_advisory_xact_lock(hashtextextended(format('walhook once %L %L ', $1::text, $2::text) || encode($3, 'hex'), 0))`

	findOnceSQL = `
		SELECT sealed FROM walhook.idempotency
		WHERE account = $1 AND token = $2 AND key = $3 AND made_at > clock_timestamp() - $4::interval`

	// The index by account bounds the one count, and two looks the other.
	countOnceSQL = `
		SELECT count(*), coalesce(sum(octet_length(sealed)), 0)::bigint,
			coalesce((SELECT max(place) FROM walhook.idempotency) - (SELECT min(place) FROM walhook.idempotency), 0)
		FROM (SELECT sealed FROM walhook.idempotency WHERE account = $1 LIMIT $2) mine`

	writeOnceSQL = `
		INSERT INTO walhook.idempotency (account, token, key, sealed, place)
		SELECT $1, $2, $3, $4, max(nextval('walhook.idempotency_unit')) FROM generate_series(1, $5::int)
		ON CONFLICT (account, token, key) DO UPDATE SET sealed = excluded.sealed, place = excluded.place, made_at = clock_timestamp()`
)

// Answered looks whether a request was answered before: [*AnsweredError],
// [ErrOnceDiffers], [ErrOnceSealed], or nil when it was not, or not yet.
func (a *Admin) Answered(ctx context.Context, by Caller, account string, once Once) error {
	if once.isZero() {
		return nil
	}
	err := a.answered(ctx, a.pool, by, account, once)
	if err != nil && !isOnceAnswer(err) {
		err = fmt.Errorf("find a stored answer to the same request: %w", err)
	}
	return err
}

func isOnceAnswer(err error) bool {
	_, answered := errors.AsType[*AnsweredError](err)
	return answered || errors.Is(err, ErrOnceDiffers) || errors.Is(err, ErrOnceSealed)
}

func (a *Admin) answered(ctx context.Context, q outbox.Querier, by Caller, account string, once Once) error {
	var sealed []byte
	err := q.QueryRow(ctx, findOnceSQL, account, by.name(), once.name(), OnceFor).Scan(&sealed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	aead, err := a.secrets.Answers(once.Proof, once.Key)
	if err != nil {
		return err
	}
	text, err := aead.Open(nil, nil, sealed, once.data(by, account))
	if err != nil || len(text) < sha256.Size {
		return ErrOnceSealed
	}
	if request := sha256.Sum256(once.Request); subtle.ConstantTimeCompare(text[:sha256.Size], request[:]) == 0 {
		return ErrOnceDiffers
	}
	return &AnsweredError{Answer: text[sha256.Size:]}
}

// onceTx lets create make something and remembers what that answers, in one
// transaction. Besides the errors of create those of Answered, [ErrOnceRunning]
// and [ErrOnceFull]. Nothing may be locked yet: the second request is refused
// at once.
func (a *Admin) onceTx(ctx context.Context, tx pgx.Tx, by Caller, account string, once Once, create func() (answer []byte, err error)) error {
	if once.isZero() {
		_, err := create()
		return err
	}
	var first bool
	if err := tx.QueryRow(ctx, lockOnceSQL, account, by.name(), once.name()).Scan(&first); err != nil {
		return err
	}
	if !first {
		return ErrOnceRunning
	}
	if err := a.answered(ctx, tx, by, account, once); err != nil {
		return err
	}
	var keys, bytes, units int64
	if err := tx.QueryRow(ctx, countOnceSQL, account, maxOnceKeys).Scan(&keys, &bytes, &units); err != nil {
		return err
	}
	if keys >= maxOnceKeys || bytes >= maxOnceBytes || units >= maxOnceUnits {
		return ErrOnceFull
	}
	answer, err := create()
	if err != nil {
		return err
	}
	aead, err := a.secrets.Answers(once.Proof, once.Key)
	if err != nil {
		return err
	}
	request := sha256.Sum256(once.Request)
	sealed := aead.Seal(nil, nil, append(request[:], answer...), once.data(by, account))
	_, err = tx.Exec(ctx, writeOnceSQL, account, by.name(), once.name(), sealed, 1+len(sealed)/onceUnit)
	return err
}

// name is what a key is found by.
func (o Once) name() []byte {
	sum := sha256.Sum256([]byte("walhook idempotency key " + o.Key))
	return sum[:]
}

// data binds an answer to its row.
func (o Once) data(by Caller, account string) []byte {
	return fmt.Appendf(nil, "walhook answer %q %q %x", account, by.name(), o.name())
}
