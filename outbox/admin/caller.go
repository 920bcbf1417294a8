package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
)

// Caller is on whose behalf something is changed: the bearer of a token, or a session
// of the portal. The zero Caller is an operator.
type Caller struct {
	Token   string // its id
	Session string // the id of a session of the portal; then there is no Token
	Account string // the account that it is of
	// Maker is of a session: the account whose token made its link, "" where an operator's
	// did. What holds the maker holds the session.
	Maker string
}

func (c Caller) isOperator() bool { return c.Token == "" && c.Session == "" }

// name tells callers apart, also a token from a session.
func (c Caller) name() string {
	if c.Session != "" {
		return "session " + c.Session
	}
	return c.Token
}

// holders are the accounts whose holds a caller has to observe in an account.
func (c Caller) holders(account string) []string {
	if above := c.above(account); above != "" {
		return []string{account, above}
	}
	return []string{account}
}

// above is the account that a caller acts as where that is above the one it acts for: its
// token's, or that of the token which made its session's link; "" for the account itself
// and for an operator.
func (c Caller) above(account string) string {
	of := cmp.Or(c.Maker, c.Account)
	if c.isOperator() || of == account {
		return ""
	}
	return of
}

var (
	// ErrCallerGone says that a caller's token has ended, or is not for the
	// account any more.
	ErrCallerGone = errors.New("the token has ended or is no longer valid for the account")
	// ErrAccountEnded says that an account was deleted in the source.
	ErrAccountEnded = errors.New("the account was deleted in the source: it can have tokens and webhooks again once an account with that id exists")
)

const (
	// The accounts above $1. One that ended is below nobody, although its place is
	// kept while its transaction lasts. UNION drops what was seen, so that a loop
	// in the tree ends.
	aboveSQL = `
		WITH RECURSIVE above AS (
			SELECT parent FROM walhook.account WHERE id = $1 AND ended_in IS NULL
			UNION
			SELECT a.parent FROM walhook.account a JOIN above ON a.id = above.parent WHERE a.ended_in IS NULL)`

	admitsSQL = aboveSQL + `
		SELECT t.account = $1 OR t.subaccounts AND EXISTS (SELECT FROM above WHERE parent = t.account)
		FROM walhook.token t WHERE t.id = $2 AND t.account = $3`

	endpointHasEndedSQL = `SELECT EXISTS (SELECT FROM walhook.endpoint WHERE id = $1 AND ended_at IS NOT NULL)`

	hasEndedSQL = `SELECT EXISTS (SELECT FROM walhook.ended_account WHERE account = $1)`
)

// Admits says whether a caller may still act for an account: nil, or
// [ErrCallerGone]. What was read before it is the account's that the caller was
// admitted to: the end of an account ends its tokens in one transaction.
func (a *Admin) Admits(ctx context.Context, by Caller, account string) error {
	err := admits(ctx, a.pool, by, account)
	if err != nil && !errors.Is(err, ErrCallerGone) {
		err = fmt.Errorf("look a token up again: %w", err)
	}
	return err
}

func admits(ctx context.Context, q outbox.Querier, by Caller, account string) error {
	if by.isOperator() {
		return nil
	}
	if by.Session != "" {
		return admitsSession(ctx, q, by, account)
	}
	var may bool
	err := q.QueryRow(ctx, admitsSQL, account, by.Token, by.Account).Scan(&may)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && !may {
		return ErrCallerGone
	}
	return err
}

// admitsSession is admits for a session of the portal: it is for its own account alone,
// and no longer than the token that its link was made with.
func admitsSession(ctx context.Context, q outbox.Querier, by Caller, account string) error {
	var maker Caller
	err := q.QueryRow(ctx, portalSessionLivesSQL, by.Session, account).Scan(&maker.Token, &maker.Account)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && by.Account != account {
		return ErrCallerGone
	}
	if err != nil {
		return err
	}
	return admits(ctx, q, maker, account)
}

// admitTx is Admits for what a transaction makes of an account. The account does
// not end until the transaction does.
func admitTx(ctx context.Context, tx pgx.Tx, by Caller, account string) error {
	if err := outbox.ShareAccountsTx(ctx, tx); err != nil {
		return err
	}
	return admits(ctx, tx, by, account)
}

// admitNewTx is admitTx for what is created.
func admitNewTx(ctx context.Context, tx pgx.Tx, by Caller, account string) error {
	if err := admitTx(ctx, tx, by, account); err != nil {
		return err
	}
	var ended bool
	if err := tx.QueryRow(ctx, hasEndedSQL, account).Scan(&ended); err != nil {
		return err
	}
	if ended {
		return ErrAccountEnded
	}
	return nil
}

// CheckNotEnded says whether an endpoint's account still exists: nil, or [ErrAccountEnded].
func (a *Admin) CheckNotEnded(ctx context.Context, endpoint int64) error {
	return notEnded(ctx, a.pool, endpoint)
}

func notEnded(ctx context.Context, q outbox.Querier, endpoint int64) error {
	var ended bool
	err := q.QueryRow(ctx, endpointHasEndedSQL, endpoint).Scan(&ended)
	if err == nil && ended {
		err = ErrAccountEnded
	}
	return err
}

const isUnknownSQL = `
	SELECT state = 'ready' AND accounts_known AND NOT EXISTS (SELECT FROM walhook.known_account WHERE id = $1)
	FROM walhook.source`

// IsUnknown says whether the source has no account of that id, by what was read of
// it so far. It is false where that is not known: before the first snapshot, with
// a catalog that names no account table, and after a change of an account whose id
// could not be read.
func (a *Admin) IsUnknown(ctx context.Context, account string) (unknown bool, err error) {
	err = a.pool.QueryRow(ctx, isUnknownSQL, account).Scan(&unknown)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return false, fmt.Errorf("look whether there is an account %s: %w", account, err)
	}
	return unknown, nil
}

const isBelowSQL = aboveSQL + ` SELECT EXISTS (SELECT FROM above WHERE parent = $2)`

// IsBelow says whether account is anywhere below the account top.
func (a *Admin) IsBelow(ctx context.Context, account, top string) (below bool, err error) {
	if err := a.pool.QueryRow(ctx, isBelowSQL, account, top).Scan(&below); err != nil {
		return false, fmt.Errorf("look up the parent accounts of %s: %w", account, err)
	}
	return below, nil
}
