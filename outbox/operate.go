package outbox

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNoEndpoint says that an account has no endpoint: it is not known, or never
// had a web hook URL.
var ErrNoEndpoint = errors.New("endpoint not found")

// StateError says that an endpoint's state does not let an operator change it
// as asked.
type StateError struct {
	Endpoint EndpointInfo
	Fix      string // what to do instead
}

func (e *StateError) Error() string {
	s := fmt.Sprintf("endpoint of account %s is %s", e.Endpoint.Account, e.Endpoint.State)
	if e.Endpoint.Reason != "" {
		s += " (" + e.Endpoint.Reason + ")"
	}
	return s + ": " + e.Fix
}

const (
	infoColumns = `id, account, webhook, coalesce(url, ''), state, reason, disabled_by, ordering, ended_at, changed_at, revision`

	// The lock makes the publisher, which may be about to change the endpoint,
	// wait for what is decided on the state that is read here.
	lockEndpointSQL = `SELECT ` + infoColumns + ` FROM walhook.endpoint WHERE account = $1 AND webhook = $2 AND deleted_at IS NULL FOR UPDATE`

	secretsSQL = `
		SELECT ` + strictSQL + `, secret, ` + earlierSecretsSQL + `, ` + earlierUntilSQL + `
		FROM walhook.endpoint e WHERE account = $1 AND webhook = $2 AND deleted_at IS NULL`

	setStateSQL = `
		UPDATE walhook.endpoint SET state = $2, disabled_by = $3, reason = $4, disabled_reason = $5,
			revision = ` + nextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE id = $1 RETURNING ` + infoColumns

	// A sender that runs resets its lane when it learns of the change; this is
	// for the one that starts later. Where delivery stands is left alone.
	resetLaneSQL = `
		UPDATE walhook.lane SET open = false, open_until = NULL, opens = 0, paused_until = NULL,
			failing_since = NULL, stage = 0, last_reason = '', held_since = NULL, held_reason = ''
		WHERE endpoint = $1`
)

// EndpointSecrets reads the whsec_ secrets that an account's deliveries are
// signed with, the newest first. [ErrNoEndpoint] when it has no endpoint.
func (s *Store) EndpointSecrets(ctx context.Context, account string) ([]string, error) {
	secrets, _, err := s.WebhookSecrets(ctx, account, AccountWebhook)
	return secrets, err
}

// ErrUnusableSecret says that a stored secret can sign nothing: it cannot be
// decrypted, or is no secret of Standard Webhooks 1.0. Where it is an earlier one,
// the others are answered with it.
var ErrUnusableSecret = errors.New("the stored signing secret cannot be used")

// WebhookSecrets is EndpointSecrets for one of an account's webhooks. until is
// when each but the first signs no longer.
func (s *Store) WebhookSecrets(ctx context.Context, account, webhook string) (secrets []string, until []time.Time, err error) {
	var secret string
	var strict bool
	var earlier []string
	err = s.pool.QueryRow(ctx, secretsSQL, account, webhook).Scan(&strict, &secret, &earlier, &until)
	if isNoRows(err) {
		err = ErrNoEndpoint
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the secret of account %s: %w", account, err)
	}
	of := holder{account, webhook}
	if secrets, err = s.openSecrets(of, strict, secret, nil); err == nil {
		_, err = SecretKey(secrets[0])
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnusableSecret, err)
	}
	ends := until[:0]
	for i, one := range earlier {
		both, bad := s.openSecrets(of, strict, secret, []string{one})
		if bad == nil && len(both) > 1 {
			_, bad = SecretKey(both[1])
		}
		if bad != nil {
			err = fmt.Errorf("%w: %w", ErrUnusableSecret, bad)
		} else if len(both) > 1 && !slices.Contains(secrets, both[1]) {
			secrets, ends = append(secrets, both[1]), append(ends, until[i])
		}
	}
	return secrets, ends, err
}

// EnableEndpoint lets a disabled endpoint be sent to again, first of all what
// was held. What is active already stays as it is. Where the account has no URL
// that can be used, an operator's earlier word is taken back, so that the next
// URL is sent to. A [*StateError] says why nothing can be sent to another one;
// [ErrNoEndpoint] that there is none.
func (s *Store) EnableEndpoint(ctx context.Context, account, webhook string) (EndpointInfo, error) {
	return s.operate(ctx, Caller{}, account, webhook, func(tx pgx.Tx, e EndpointInfo) (EndpointInfo, error) {
		return enableTx(ctx, tx, e)
	})
}

// enableTx is an operator's word that an endpoint is sent to, and with it every
// other one of the account for the same host that an operator disabled.
func enableTx(ctx context.Context, tx pgx.Tx, e EndpointInfo) (EndpointInfo, error) {
	var url, setBy string
	if err := tx.QueryRow(ctx, endpointURLSQL, e.ID).Scan(&url, &setBy); err != nil {
		return e, err
	}
	released := e.DisabledBy == byOperator
	if released {
		if _, _, err := releaseTx(ctx, tx, e.Account, HostOf(url), e.ID, false); err != nil {
			return e, err
		}
	}
	if released && setBy != "" { // only what was made for this one
		if _, _, err := releaseTx(ctx, tx, setBy, "", e.ID, false); err != nil {
			return e, err
		}
	}
	err := checkHeld(ctx, tx, url, e.Account, setBy)
	if held, is := errors.AsType[*HeldError](err); is {
		host := " --all"
		if held.Host != "" {
			host = " --host " + held.Host
		}
		return e, &StateError{e, held.Error() + "; 'walhook endpoints enable " + held.Account + host + "' ends that"}
	}
	if err != nil {
		return e, err
	}
	if released {
		rows, err := tx.Query(ctx, lockEndpointSQL, e.Account, e.Webhook)
		if err != nil {
			return e, err
		}
		return pgx.CollectExactlyOneRow(rows, scanEndpointInfo)
	}
	switch {
	case e.State == EndpointActive:
		return e, nil
	case e.State != EndpointDisabled && e.DisabledBy != "":
		return setStateTx(ctx, tx, e, e.State, "", e.Reason)
	case e.State == EndpointCleared:
		return e, &StateError{e, "the account has no URL: it must set a web_hook_url, which starts a new feed"}
	case e.State == EndpointUnusable:
		return e, &StateError{e, "the account's URL is unusable: it must set another one, which walhook follows by itself"}
	}
	if _, err := tx.Exec(ctx, resetLaneSQL, e.ID); err != nil {
		return e, err
	}
	return setStateTx(ctx, tx, e, EndpointActive, "", "")
}

// DisableEndpoint holds an account's events from now on, until it is enabled
// again or retention ends. reason is for people; the account above is told. It
// stays disabled whatever the account does with its URL. A [*StateError] says
// that nothing is sent to it anyhow; [ErrNoEndpoint] that there is none.
func (s *Store) DisableEndpoint(ctx context.Context, account, webhook, reason string) (EndpointInfo, error) {
	if reason == "" {
		return EndpointInfo{}, errors.New("disable an endpoint: the reason is missing")
	}
	notify := false
	e, err := s.operate(ctx, Caller{}, account, webhook, func(tx pgx.Tx, e EndpointInfo) (EndpointInfo, error) {
		notify = e.State == EndpointActive
		return disableTx(ctx, tx, e, reason)
	})
	if err == nil && notify {
		s.signalInbox()
	}
	return e, err
}

// disableTx is an operator's word that nothing goes to an endpoint, nor to its
// host from any other one of the account or of the one whose token set its URL,
// until an operator enables it.
func disableTx(ctx context.Context, tx pgx.Tx, e EndpointInfo, reason string) (EndpointInfo, error) {
	switch e.State {
	case EndpointCleared, EndpointUnusable:
		return e, &StateError{e, "walhook sends nothing to it at present; disable it once the account has a usable URL, or hold the whole account ('walhook endpoints disable " + e.Account + " --all')"}
	case EndpointActive:
		if _, err := tx.Exec(ctx, tellDisabledSQL, e.Account, reason); err != nil {
			return e, err
		}
	}
	var url, setBy string
	if err := tx.QueryRow(ctx, endpointURLSQL, e.ID).Scan(&url, &setBy); err != nil {
		return e, err
	}
	e, err := setStateTx(ctx, tx, e, EndpointDisabled, byOperator, reason)
	host := HostOf(url)
	for _, account := range []string{e.Account, setBy} {
		if err == nil && host != "" && account != "" {
			_, err = holdTx(ctx, tx, account, host, reason, e.ID)
		}
	}
	return e, err
}

// byOperator marks what walhook does not undo (disabled_by).
const byOperator = "operator"

// operate changes one of an account's endpoints under a lock, as far as by may.
func (s *Store) operate(ctx context.Context, by Caller, account, webhook string, change func(pgx.Tx, EndpointInfo) (EndpointInfo, error)) (e EndpointInfo, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// Before any endpoint, as whoever sets a URL does.
		if _, err := tx.Exec(ctx, lockAccountsSQL, accountsLock); err != nil {
			return err
		}
		if err := admits(ctx, tx, by, account); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, lockEndpointSQL, account, webhook)
		if err == nil {
			e, err = pgx.CollectExactlyOneRow(rows, scanEndpointInfo)
		}
		if isNoRows(err) {
			err = ErrNoEndpoint
		}
		if err == nil {
			e, err = change(tx, e)
		}
		return err
	})
	if err != nil {
		if _, explained := errors.AsType[*StateError](err); !explained {
			err = fmt.Errorf("change the endpoint of account %s: %w", account, err)
		}
		return EndpointInfo{}, err
	}
	return e, nil
}

func setStateTx(ctx context.Context, tx pgx.Tx, e EndpointInfo, state EndpointState, by, reason string) (EndpointInfo, error) {
	held := ""
	if by == byOperator {
		held = reason
	}
	rows, err := tx.Query(ctx, setStateSQL, e.ID, string(state), by, reason, held)
	if err != nil {
		return e, err
	}
	return pgx.CollectExactlyOneRow(rows, scanEndpointInfo)
}

// redactURL leaves scheme, host and path. What cannot be read, or has no host
// and so may be anything, is not shown at all.
func redactURL(s string) string {
	if s == "" {
		return ""
	}
	u, err := parseEncoded(s)
	if err != nil || u.Host == "" {
		return "(not shown: no URL)"
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	text := shown.String()
	if u.User != nil {
		text = strings.Replace(text, "://", "://…@", 1)
	}
	if u.RawQuery != "" {
		text += "?…"
	}
	return text
}
