package admin

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
)

const (
	// PortalLinkFor is how long a link to the portal is valid; it opens once.
	PortalLinkFor = 15 * time.Minute
	// PortalSessionFor is how long a session of the portal lasts.
	PortalSessionFor = 12 * time.Hour
	// maxPortalLinks is how many unused links an account may have.
	maxPortalLinks = 100
)

var (
	// ErrNoPortalLink says that a link was used, has expired, or never existed.
	ErrNoPortalLink = errors.New("the link was used before, has expired, or does not exist")
	// ErrTooManyPortalLinks says that an account has too many links that nobody has used.
	ErrTooManyPortalLinks = fmt.Errorf("an account may have %d unused links to its portal; each expires after 15 minutes", maxPortalLinks)
	// ErrNoPortalSession says that a session has ended, or never existed.
	ErrNoPortalSession = errors.New("the session has ended")
)

// PortalLink opens the portal of an account once.
type PortalLink struct {
	Account   string
	Secret    string // goes into the link, and is not stored
	ExpiresAt time.Time
}

// PortalSession is a session of the portal: of one account, or of an operator.
type PortalSession struct {
	ID        string // names it in the audit, and opens nothing
	Account   string // "" for an operator
	Maker     string // the account whose token made its link; "" where an operator's did
	Operator  bool
	ExpiresAt time.Time
}

// Name stands in the audit.
func (s PortalSession) Name() string {
	if s.Operator {
		return "operator, portal session " + s.ID
	}
	return "portal session " + s.ID
}

// The prefixes show people and scanners for leaked secrets what a text is.
const (
	portalLinkPrefix    = "whlink_"
	portalSessionPrefix = "whses_"
)

const (
	// One at a time for an account, so that the count holds.
	lockPortalSQL = `SELECT pg_advisory_xact_lock(hashtextextended('walhook portal ' || $1, 0))`

	// Used links stay until they expire, so that the count bounds them too.
	forgetPortalLinksSQL    = `DELETE FROM walhook.portal_link WHERE expires_at <= statement_timestamp()`
	forgetPortalSessionsSQL = `DELETE FROM walhook.portal_session WHERE expires_at <= statement_timestamp()`
	countPortalLinksSQL     = `SELECT count(*) FROM walhook.portal_link WHERE account = $1 AND used_at IS NULL`

	createPortalLinkSQL = `
		INSERT INTO walhook.portal_link (hash, account, token, token_account, expires_at)
		VALUES ($1, $2, $3, $4, clock_timestamp() + $5::interval) RETURNING expires_at`

	// The row lock of the update makes one of two concurrent uses wait for the other,
	// and then find the link used.
	usePortalLinkSQL = `
		UPDATE walhook.portal_link SET used_at = clock_timestamp()
		WHERE hash = $1 AND used_at IS NULL AND expires_at > clock_timestamp()
		RETURNING account, token, token_account`

	peekPortalLinkSQL = `SELECT account FROM walhook.portal_link WHERE hash = $1 AND used_at IS NULL AND expires_at > clock_timestamp()`

	createPortalSessionSQL = `
		INSERT INTO walhook.portal_session (hash, id, account, operator, token, token_account, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + $7::interval) RETURNING expires_at`

	findPortalSessionSQL = `
		SELECT id, account, operator, token, token_account, expires_at FROM walhook.portal_session
		WHERE (hash = $1 AND NOT operator OR hash = $2 AND operator) AND expires_at > clock_timestamp()`

	endPortalSessionSQL = `DELETE FROM walhook.portal_session WHERE id = $1`

	portalSessionLivesSQL = `
		SELECT token, token_account FROM walhook.portal_session
		WHERE id = $1 AND account = $2 AND expires_at > clock_timestamp()`
)

// CreatePortalLink makes a link to the portal of an account. by is who asks: the link,
// and the session that it becomes, end with by's token. [ErrTooManyPortalLinks],
// [ErrAccountEnded] and [ErrCallerGone] as for a token. With a key in once, answer writes
// what is answered, and a repeated request is answered with the same link.
func (a *Admin) CreatePortalLink(ctx context.Context, by Caller, account string, once Once, answer func(PortalLink) ([]byte, error)) (PortalLink, error) {
	link := PortalLink{Account: account, Secret: portalLinkPrefix + randomText()}
	err := a.change(ctx, &Act{Action: actPortalLink, Account: account}, func(tx pgx.Tx) error {
		return a.onceTx(ctx, tx, by, account, once, func() ([]byte, error) {
			if err := createPortalLinkTx(ctx, tx, by, &link); err != nil || answer == nil {
				return nil, err
			}
			return answer(link)
		})
	})
	if err != nil {
		return PortalLink{}, fmt.Errorf("create a link to the portal of account %s: %w", account, err)
	}
	return link, nil
}

func createPortalLinkTx(ctx context.Context, tx pgx.Tx, by Caller, link *PortalLink) error {
	if err := admitNewTx(ctx, tx, by, link.Account); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, lockPortalSQL, link.Account); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, forgetPortalLinksSQL); err != nil {
		return err
	}
	var n int
	if err := tx.QueryRow(ctx, countPortalLinksSQL, link.Account).Scan(&n); err != nil {
		return err
	}
	if n >= maxPortalLinks {
		return ErrTooManyPortalLinks
	}
	return tx.QueryRow(ctx, createPortalLinkSQL, hashToken(link.Secret), link.Account, by.Token, by.Account, PortalLinkFor).Scan(&link.ExpiresAt)
}

// UsePortalLink makes a session of a link, once, and returns it with the secret text of
// its cookie. [ErrNoPortalLink] for a link that cannot be used any more, also because the
// token that it was made with has ended.
func (a *Admin) UsePortalLink(ctx context.Context, secret string) (s PortalSession, cookie string, err error) {
	if !strings.HasPrefix(secret, portalLinkPrefix) {
		return PortalSession{}, "", ErrNoPortalLink
	}
	cookie = portalSessionPrefix + randomText()
	act := &Act{Action: actPortalEntered}
	err = a.change(ctx, act, func(tx pgx.Tx) error {
		// Before the link's row, as whoever ends the account does.
		if err := outbox.ShareAccountsTx(ctx, tx); err != nil {
			return err
		}
		var by Caller
		err := tx.QueryRow(ctx, usePortalLinkSQL, hashToken(secret)).Scan(&s.Account, &by.Token, &by.Account)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNoPortalLink
		}
		if err != nil {
			return err
		}
		if err := admitNewTx(ctx, tx, by, s.Account); errors.Is(err, ErrCallerGone) || errors.Is(err, ErrAccountEnded) {
			return ErrNoPortalLink
		} else if err != nil {
			return err
		}
		err = createPortalSessionTx(ctx, tx, &s, by, hashToken(cookie))
		act.Actor, act.Account = s.Name(), s.Account
		return err
	})
	if err != nil {
		return PortalSession{}, "", fmt.Errorf("enter the portal: %w", err)
	}
	return s, cookie, nil
}

// PeekPortalLink returns the account that a link is for, and leaves the link as it is.
// [ErrNoPortalLink] for a link that was used, has expired, or never existed.
func (a *Admin) PeekPortalLink(ctx context.Context, secret string) (account string, err error) {
	if !strings.HasPrefix(secret, portalLinkPrefix) {
		return "", ErrNoPortalLink
	}
	err = a.pool.QueryRow(ctx, peekPortalLinkSQL, hashToken(secret)).Scan(&account)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", ErrNoPortalLink
	}
	if err != nil {
		return "", fmt.Errorf("look at a link to the portal: %w", err)
	}
	return account, nil
}

// EnterPortal makes a session of an operator, who has shown the operator's token. It
// ends when that token changes.
func (a *Admin) EnterPortal(ctx context.Context, operatorToken string) (PortalSession, string, error) {
	s, cookie := PortalSession{Operator: true}, portalSessionPrefix+randomText()
	act := &Act{Action: actPortalEntered}
	err := a.change(ctx, act, func(tx pgx.Tx) error {
		err := createPortalSessionTx(ctx, tx, &s, Caller{}, hashOperator(cookie, operatorToken))
		act.Actor = s.Name()
		return err
	})
	if err != nil {
		return PortalSession{}, "", fmt.Errorf("enter the portal as an operator: %w", err)
	}
	return s, cookie, nil
}

func createPortalSessionTx(ctx context.Context, tx pgx.Tx, s *PortalSession, by Caller, hash []byte) error {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand
	s.ID = hex.EncodeToString(id[:])
	if _, err := tx.Exec(ctx, forgetPortalSessionsSQL); err != nil {
		return err
	}
	return tx.QueryRow(ctx, createPortalSessionSQL, hash, s.ID, s.Account, s.Operator, by.Token, by.Account, PortalSessionFor).Scan(&s.ExpiresAt)
}

// FindPortalSession finds the session of a cookie. operatorToken is the present one; ""
// admits no operator. [ErrNoPortalSession] when it has ended, by its time, with the
// token that its link was made with, or with its account.
func (a *Admin) FindPortalSession(ctx context.Context, cookie, operatorToken string) (s PortalSession, err error) {
	if !strings.HasPrefix(cookie, portalSessionPrefix) {
		return s, ErrNoPortalSession
	}
	var ofOperator []byte
	if operatorToken != "" {
		ofOperator = hashOperator(cookie, operatorToken)
	}
	var by Caller
	err = a.pool.QueryRow(ctx, findPortalSessionSQL, hashToken(cookie), ofOperator).Scan(&s.ID, &s.Account, &s.Operator, &by.Token, &by.Account, &s.ExpiresAt)
	if err == nil && !s.Operator {
		s.Maker = by.Account
		err = admits(ctx, a.pool, by, s.Account)
	}
	if errors.Is(err, pgx.ErrNoRows) || errors.Is(err, ErrCallerGone) {
		return PortalSession{}, ErrNoPortalSession
	}
	if err != nil {
		return PortalSession{}, fmt.Errorf("look up a session of the portal: %w", err)
	}
	return s, nil
}

// EndPortalSession ends a session at once.
func (a *Admin) EndPortalSession(ctx context.Context, id string) error {
	if _, err := a.pool.Exec(ctx, endPortalSessionSQL, id); err != nil {
		return fmt.Errorf("end a session of the portal: %w", err)
	}
	return nil
}

func randomText() string {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails: crypto/rand
	return base64.RawURLEncoding.EncodeToString(key[:])
}

// hashOperator is what is stored of an operator's session. Whoever reads the outbox
// cannot test guesses of the operator's token with it, without the cookie.
func hashOperator(cookie, operatorToken string) []byte {
	mac := hmac.New(sha256.New, []byte(operatorToken))
	mac.Write([]byte("walhook portal operator\x00" + cookie))
	return mac.Sum(nil)
}
