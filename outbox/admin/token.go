package admin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Token lets its bearer use the API for an account. What is secret of it is
// shown once, by [Admin.CreateToken]; only a hash is kept.
type Token struct {
	ID      string // names it, and opens nothing
	Account string
	// Subaccounts extends it to all accounts below, at any depth.
	Subaccounts bool
	Name        string // for people
	CreatedAt   time.Time
}

// MaxTokens is how many tokens an account may have.
const MaxTokens = 100

var (
	// ErrTooManyTokens says that an account has [MaxTokens] already.
	ErrTooManyTokens = fmt.Errorf("an account may have %d tokens", MaxTokens)
	// ErrNoToken says that there is no such token.
	ErrNoToken = errors.New("token not found")
)

// tokenPrefix shows people and scanners for leaked secrets what it is.
const tokenPrefix = "whtok_"

const (
	tokenColumns = `id, account, subaccounts, name, created_at`

	// One at a time for an account, so that the count holds.
	lockTokensSQL  = `SELECT pg_advisory_xact_lock(hashtextextended('walhook token ' || $1, 0))`
	countTokensSQL = `SELECT count(*) FROM walhook.token WHERE account = $1`

	createTokenSQL = `
		INSERT INTO walhook.token (hash, id, account, subaccounts, name) VALUES ($1, $2, $3, $4, $5)
		RETURNING ` + tokenColumns

	tokensSQL = `SELECT ` + tokenColumns + ` FROM walhook.token
		WHERE account = $1 AND ($2::timestamptz IS NULL OR (created_at, id) > ($2, $3)) ORDER BY created_at, id LIMIT $4`

	// Nobody can ask for the answers to it any more.
	deleteTokenSQL = `
		WITH answers AS (DELETE FROM walhook.idempotency WHERE account = $1 AND token = $2)
		DELETE FROM walhook.token WHERE account = $1 AND id = $2 RETURNING ` + tokenColumns

	findTokenSQL = `SELECT ` + tokenColumns + ` FROM walhook.token WHERE hash = $1`
)

// CreateToken makes a token and answers it with its secret text, which is not
// to be had again. With a key in once, answer writes what is answered; the zero Once
// has none. [ErrTooManyTokens] when the account may not have another,
// [ErrAccountEnded] when there is none of that id any more; besides the errors of a key,
// as of [Admin.CreateWebhook].
func (a *Admin) CreateToken(ctx context.Context, t Token, once Once, answer func(Token, string) ([]byte, error)) (Token, string, error) {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails: crypto/rand
	secret := tokenPrefix + base64.RawURLEncoding.EncodeToString(key[:])
	var id [8]byte
	_, _ = rand.Read(id[:])
	act := &Act{Action: actTokenCreated, Account: t.Account}
	err := a.change(ctx, act, func(tx pgx.Tx) error {
		return a.onceTx(ctx, tx, Caller{}, t.Account, once, func() ([]byte, error) { // only an operator makes one
			if err := createTokenTx(ctx, tx, &t, hashToken(secret), hex.EncodeToString(id[:])); err != nil {
				return nil, err
			}
			if act.Detail = "token " + t.ID; t.Subaccounts {
				act.Detail += ", for sub-accounts too"
			}
			if answer == nil {
				return nil, nil
			}
			return answer(t, secret)
		})
	})
	if err != nil {
		return Token{}, "", fmt.Errorf("create a token of account %s: %w", t.Account, err)
	}
	return t, secret, nil
}

func createTokenTx(ctx context.Context, tx pgx.Tx, t *Token, hash []byte, id string) error {
	if err := admitNewTx(ctx, tx, Caller{}, t.Account); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, lockTokensSQL, t.Account); err != nil {
		return err
	}
	var n int
	if err := tx.QueryRow(ctx, countTokensSQL, t.Account).Scan(&n); err != nil {
		return err
	}
	if n >= MaxTokens {
		return ErrTooManyTokens
	}
	rows, err := tx.Query(ctx, createTokenSQL, hash, id, t.Account, t.Subaccounts, t.Name)
	if err != nil {
		return err
	}
	created, err := pgx.CollectExactlyOneRow(rows, scanToken)
	if err == nil {
		*t = created
	}
	return err
}

// Tokens lists an account's tokens, the oldest first, from the one after the
// token after on; nil begins at the start.
func (a *Admin) Tokens(ctx context.Context, account string, after *Token, limit int) ([]Token, error) {
	var at *time.Time
	id := ""
	if after != nil {
		at, id = &after.CreatedAt, after.ID
	}
	rows, err := a.pool.Query(ctx, tokensSQL, account, at, id, limit)
	var list []Token
	bad := map[string]error{}
	if err == nil {
		list, err = collectEach(rows, scanToken, func(t *Token, cause error) { bad[t.ID] = cause })
	}
	for token, cause := range bad {
		a.store.SetAsideRow(ctx, "tokens", token, 0, cause)
	}
	if err != nil {
		return nil, fmt.Errorf("list the tokens of account %s: %w", account, err)
	}
	return list, nil
}

// DeleteToken ends a token at once and answers it. [ErrNoToken] when the
// account has none with that id.
func (a *Admin) DeleteToken(ctx context.Context, account, id string) (Token, error) {
	var t Token
	err := a.change(ctx, &Act{Action: actTokenDeleted, Account: account, Detail: "token " + id}, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, deleteTokenSQL, account, id)
		t, err = oneToken(rows, err)
		return err
	})
	if err != nil {
		return Token{}, fmt.Errorf("delete token %s of account %s: %w", id, account, err)
	}
	return t, nil
}

// FindToken finds the token with a secret text. [ErrNoToken] when there is none,
// and for one whose row cannot be read: that is set aside.
func (a *Admin) FindToken(ctx context.Context, secret string) (Token, error) {
	hash := hashToken(secret)
	rows, err := a.pool.Query(ctx, findTokenSQL, hash)
	t, err := oneToken(rows, err)
	if a.store.TokenRead(ctx, hex.EncodeToString(hash[:8]), err) {
		return Token{}, ErrNoToken
	}
	if err != nil && !errors.Is(err, ErrNoToken) {
		err = fmt.Errorf("look up a token: %w", err)
	}
	return t, err
}

// hashToken is what is kept of a token. Its secret is 256 random bits, so a
// fast hash without salt is as good as any.
func hashToken(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

func oneToken(rows pgx.Rows, err error) (Token, error) {
	var t Token
	if err == nil {
		t, err = pgx.CollectExactlyOneRow(rows, scanToken)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNoToken
	}
	return t, err
}

func scanToken(row pgx.CollectableRow) (t Token, err error) {
	return t, row.Scan(&t.ID, &t.Account, &t.Subaccounts, &t.Name, &t.CreatedAt)
}
