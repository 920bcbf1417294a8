package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Caller is on whose behalf something is changed: the bearer of a token. The
// zero Caller is an operator.
type Caller struct {
	Token   string // its id
	Account string // the account that it is of
}

func (c Caller) isOperator() bool { return c.Token == "" }

// holders are the accounts whose holds a caller has to observe in an account.
func (c Caller) holders(account string) []string {
	if c.isOperator() || c.Account == account {
		return []string{account}
	}
	return []string{account, c.Account}
}

// above is the caller's account where that is above the one it acts for; "" for
// the account itself and for an operator.
func (c Caller) above(account string) string {
	if c.isOperator() || c.Account == account {
		return ""
	}
	return c.Account
}

var (
	// ErrCallerGone says that a caller's token has ended, or is not for the
	// account any more.
	ErrCallerGone = errors.New("the token has ended or is no longer valid for the account")
	// ErrAccountEnded says that an account was deleted in the source.
	ErrAccountEnded = errors.New("the account was deleted in the source: it can have tokens and webhooks again once an account with that id exists")
)

// accountsLock is held alone while accounts begin, end or are held, and shared
// while tokens and webhooks are made. So nothing is made beside the end of its
// account, nor beside a hold. Whoever takes it takes it before any endpoint.
const accountsLock = 0x77_61_6c_07

const (
	lockAccountsSQL  = `SELECT pg_advisory_xact_lock($1)`
	shareAccountsSQL = `SELECT pg_advisory_xact_lock_shared($1)`

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

	hasEndedSQL = `SELECT EXISTS (SELECT FROM walhook.ended_account WHERE account = $1)`
)

// querier is a pool or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Admits says whether a caller may still act for an account: nil, or
// [ErrCallerGone]. What was read before it is the account's that the caller was
// admitted to: the end of an account ends its tokens in one transaction.
func (s *Store) Admits(ctx context.Context, by Caller, account string) error {
	err := admits(ctx, s.pool, by, account)
	if err != nil && !errors.Is(err, ErrCallerGone) {
		err = fmt.Errorf("look a token up again: %w", err)
	}
	return err
}

func admits(ctx context.Context, q querier, by Caller, account string) error {
	if by.isOperator() {
		return nil
	}
	var may bool
	err := q.QueryRow(ctx, admitsSQL, account, by.Token, by.Account).Scan(&may)
	if isNoRows(err) || err == nil && !may {
		return ErrCallerGone
	}
	return err
}

// admitTx is Admits for what a transaction makes of an account. The account does
// not end until the transaction does.
func admitTx(ctx context.Context, tx pgx.Tx, by Caller, account string) error {
	if _, err := tx.Exec(ctx, shareAccountsSQL, accountsLock); err != nil {
		return err
	}
	return admits(ctx, tx, by, account)
}

// admitNewTx is admitTx for what is made anew.
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
