package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox"
	"walhook/outbox/address"
	"walhook/outbox/seal"
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
	if e.Endpoint.Account == outbox.NoAccount {
		s = fmt.Sprintf("feed is %s", e.Endpoint.State)
	}
	if e.Endpoint.Reason != "" {
		s += " (" + e.Endpoint.Reason + ")"
	}
	return s + ": " + e.Fix
}

const (
	// The lock makes the publisher, which may be about to change the endpoint,
	// wait for what is decided on the state that is read here.
	lockEndpointSQL = `SELECT ` + infoColumns + ` FROM walhook.endpoint WHERE account = $1 AND webhook = $2 AND deleted_at IS NULL FOR UPDATE`

	endpointURLSQL = `SELECT coalesce(url, ''), set_by FROM walhook.endpoint WHERE id = $1`

	secretsSQL = `
		SELECT ` + seal.StrictSQL + `, secret, ` + seal.EarlierSecretsSQL + `, ` + seal.EarlierUntilSQL + `
		FROM walhook.endpoint e WHERE account = $1 AND webhook = $2 AND deleted_at IS NULL`

	disabledBySQL = `
		UPDATE walhook.endpoint SET ` + outbox.DisabledBySQL + `, revision = ` + outbox.NextRevisionSQL + `, changed_at = clock_timestamp()
		WHERE id = $1 RETURNING ` + infoColumns
)

// EndpointSecrets reads the whsec_ secrets that an account's deliveries are
// signed with, the newest first. [ErrNoEndpoint] when it has no endpoint.
func (a *Admin) EndpointSecrets(ctx context.Context, account string) ([]string, error) {
	secrets, _, err := a.WebhookSecrets(ctx, account, outbox.AccountWebhook)
	return secrets, err
}

// ErrUnusableSecret says that a stored secret can sign nothing: it cannot be
// decrypted, or is no secret of Standard Webhooks 1.0. Where it is an earlier one,
// the others are answered with it.
var ErrUnusableSecret = errors.New("the stored signing secret cannot be used")

// WebhookSecrets is EndpointSecrets for one of an account's webhooks. until is
// when each but the first signs no longer.
func (a *Admin) WebhookSecrets(ctx context.Context, account, webhook string) (secrets []string, until []time.Time, err error) {
	return a.webhookSecrets(ctx, a.pool, account, webhook)
}

func (a *Admin) webhookSecrets(ctx context.Context, q outbox.Querier, account, webhook string) (secrets []string, until []time.Time, err error) {
	var secret string
	var strict bool
	var earlier []string
	err = q.QueryRow(ctx, secretsSQL, account, webhook).Scan(&strict, &secret, &earlier, &until)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNoEndpoint
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the secret of account %s: %w", account, err)
	}
	of := seal.Holder{Account: account, Webhook: webhook}
	if secrets, err = a.secrets.OpenAll(of, strict, secret, nil); err == nil {
		_, err = seal.SecretKey(secrets[0])
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnusableSecret, err)
	}
	ends := until[:0]
	for i, one := range earlier {
		both, bad := a.secrets.OpenAll(of, strict, secret, []string{one})
		if bad == nil && len(both) > 1 {
			_, bad = seal.SecretKey(both[1])
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
func (a *Admin) EnableEndpoint(ctx context.Context, account, webhook string) (EndpointInfo, error) {
	return a.enableEndpoint(ctx, account, webhook, &Act{Action: actWebhookEnabled})
}

func (a *Admin) enableEndpoint(ctx context.Context, account, webhook string, act *Act) (EndpointInfo, error) {
	return a.operate(ctx, Caller{}, account, webhook, act, func(tx pgx.Tx, e EndpointInfo) (EndpointInfo, error) {
		return enableTx(ctx, tx, e)
	})
}

// enableTx is an operator's word that an endpoint is sent to, whoever disabled it. It takes
// back an operator's word on every other one of the account for the same host, too; what the
// account or walhook has disabled of those stays so.
func enableTx(ctx context.Context, tx pgx.Tx, e EndpointInfo) (EndpointInfo, error) {
	var url, setBy string
	if err := tx.QueryRow(ctx, endpointURLSQL, e.ID).Scan(&url, &setBy); err != nil {
		return e, err
	}
	released := e.DisabledBy == outbox.ByOperator
	if released {
		if _, err := outbox.ReleaseTx(ctx, tx, e.Account, address.HostOf(url), e.ID, false); err != nil {
			return e, err
		}
	}
	if released && setBy != "" { // only what was made for this one
		if _, err := outbox.ReleaseTx(ctx, tx, setBy, "", e.ID, false); err != nil {
			return e, err
		}
	}
	err := outbox.CheckHeld(ctx, tx, url, e.Account, setBy)
	if held, is := errors.AsType[*outbox.HeldError](err); is {
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
	case e.State == outbox.EndpointActive:
		return e, nil
	case e.State != outbox.EndpointDisabled && e.DisabledBy != "":
		return disabledByTx(ctx, tx, e, "", "")
	case e.State == outbox.EndpointCleared:
		return e, &StateError{e, "the account has no URL: it must set a web_hook_url, which starts a new feed"}
	case e.State == outbox.EndpointUnusable:
		return e, &StateError{e, "the account's URL is unusable: it must set another one, which walhook follows by itself"}
	}
	if err := outbox.ResetLaneTx(ctx, tx, e.ID); err != nil {
		return e, err
	}
	return disabledByTx(ctx, tx, e, "", "")
}

// DisableEndpoint holds an account's events from now on, until it is enabled
// again or retention ends. reason is for people; the parent account is notified. It
// stays disabled whatever the account does with its URL. A [*StateError] says
// that nothing is sent to it anyhow; [ErrNoEndpoint] that there is none.
func (a *Admin) DisableEndpoint(ctx context.Context, account, webhook, reason string) (EndpointInfo, error) {
	return a.disableEndpoint(ctx, account, webhook, reason, &Act{Action: actWebhookDisabled, Detail: "reason: " + reason})
}

func (a *Admin) disableEndpoint(ctx context.Context, account, webhook, reason string, act *Act) (EndpointInfo, error) {
	if reason == "" {
		return EndpointInfo{}, errors.New("disable an endpoint: the reason is missing")
	}
	notify := false
	e, err := a.operate(ctx, Caller{}, account, webhook, act, func(tx pgx.Tx, e EndpointInfo) (EndpointInfo, error) {
		notify = e.State == outbox.EndpointActive
		return disableTx(ctx, tx, e, reason)
	})
	if err == nil && notify {
		a.store.NotifyInbox()
	}
	return e, err
}

// disableTx is an operator's word that nothing goes to an endpoint, nor to its
// host from any other one of the account or of the one whose token set its URL,
// until an operator enables it.
func disableTx(ctx context.Context, tx pgx.Tx, e EndpointInfo, reason string) (EndpointInfo, error) {
	switch e.State {
	case outbox.EndpointCleared, outbox.EndpointUnusable:
		return e, &StateError{e, "walhook sends nothing to it at present; disable it once the account has a usable URL, or hold the whole account ('walhook endpoints disable " + e.Account + " --all')"}
	case outbox.EndpointActive:
		if err := outbox.TellDisabledTx(ctx, tx, e.Account, reason); err != nil {
			return e, err
		}
	}
	var url, setBy string
	if err := tx.QueryRow(ctx, endpointURLSQL, e.ID).Scan(&url, &setBy); err != nil {
		return e, err
	}
	e, err := disabledByTx(ctx, tx, e, outbox.ByOperator, reason)
	host := address.HostOf(url)
	for _, account := range []string{e.Account, setBy} {
		if err == nil && host != "" && account != "" {
			_, err = outbox.HoldTx(ctx, tx, account, host, reason, e.ID)
		}
	}
	return e, err
}

// operate changes one of an account's endpoints under a lock, as far as by may.
// change may complete act, or take its action out where nothing changes.
func (a *Admin) operate(ctx context.Context, by Caller, account, webhook string, act *Act, change func(pgx.Tx, EndpointInfo) (EndpointInfo, error)) (e EndpointInfo, err error) {
	return a.operateOnce(ctx, by, account, webhook, act, Once{}, func(tx pgx.Tx, e EndpointInfo) (EndpointInfo, []byte, error) {
		e, err := change(tx, e)
		return e, nil, err
	})
}

// operateOnce is operate for a request that may have a key: change also returns what is
// answered. Its errors are those of onceTx, too.
func (a *Admin) operateOnce(ctx context.Context, by Caller, account, webhook string, act *Act, once Once, change func(pgx.Tx, EndpointInfo) (EndpointInfo, []byte, error)) (e EndpointInfo, err error) {
	act.Account, act.Webhook = account, webhook
	alter := func(tx pgx.Tx) (answer []byte, err error) {
		// Before any endpoint, as every transaction that sets a URL does.
		if err := outbox.LockAccountsTx(ctx, tx); err != nil {
			return nil, err
		}
		if err := admits(ctx, tx, by, account); err != nil {
			return nil, err
		}
		rows, err := tx.Query(ctx, lockEndpointSQL, account, webhook)
		if err == nil {
			e, err = pgx.CollectExactlyOneRow(rows, scanEndpointInfo)
		}
		if errors.Is(err, pgx.ErrNoRows) {
			err = ErrNoEndpoint
		}
		if err == nil {
			e, answer, err = change(tx, e)
		}
		return answer, err
	}
	err = a.change(ctx, act, func(tx pgx.Tx) error {
		return a.onceTx(ctx, tx, by, account, once, func() ([]byte, error) { return alter(tx) })
	})
	if err != nil {
		if _, explained := errors.AsType[*StateError](err); !explained {
			err = fmt.Errorf("change the endpoint of account %s: %w", account, err)
		}
		return EndpointInfo{}, err
	}
	a.store.NotifyEndpoints()
	return e, nil
}

// disabledByTx takes an endpoint to the state that follows: by is "" for enabling it.
func disabledByTx(ctx context.Context, tx pgx.Tx, e EndpointInfo, by, reason string) (EndpointInfo, error) {
	rows, err := tx.Query(ctx, disabledBySQL, e.ID, by, reason)
	if err != nil {
		return e, err
	}
	return pgx.CollectExactlyOneRow(rows, scanEndpointInfo)
}
