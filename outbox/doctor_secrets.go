package outbox

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
)

const storedSecretsSQL = `SELECT account, webhook, own_secret, secret, coalesce(url, ''), ` + strictSQL + `, ` + strictURLSQL + ` FROM walhook.endpoint WHERE deleted_at IS NULL ORDER BY id LIMIT 100000`

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
	var secret, address string
	var strict, strictURL bool
	var plain []secretHolder
	locked, total, plainURLs := 0, 0, 0
	_, err = pgx.ForEachRow(rows, []any{&one.account, &one.webhook, &one.own, &secret, &address, &strict, &strictURL}, func() error {
		total++
		of := holder{one.account, one.webhook}
		if isPlainURL(address) {
			plainURLs++
		}
		_, urlErr := secrets.openURL(address, of, strictURL)
		if _, err := secrets.open(secret, of, strict); err != nil || urlErr != nil {
			locked++
		} else if !strings.HasPrefix(secret, boundPrefix) {
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
	case locked > 0 && locked < total:
		mend := doctor.Steps{{Kind: doctor.Shell, Text: "# store or rotate those secrets again: 'walhook endpoints' names the endpoints that are held",
			Note: "everybody else's events are delivered"}}
		e.r.Fail(checkSecrets, mend, "%d of %d secrets cannot be decrypted with --secret-key: those endpoints are held", locked, total)
	case locked > 0:
		mend := doctor.Steps{{Kind: doctor.Setting, Text: "--secret-key=KEY", Note: "the key that they were stored under"}}
		e.r.Fail(checkSecrets, mend, "none of %d secrets can be decrypted: --secret-key is not the key that they were stored under, and nothing can be signed", total)
	case noKey:
		e.r.Warn(checkSecrets, doctor.Steps{newKey}, "%d signing secrets are stored as they are: there is no --secret-key", len(plain))
	case len(plain) > 0:
		e.r.Warn(checkSecrets, doctor.Run("walhook endpoints reseal"), "%d of %d signing secrets were stored before there was a --secret-key, as they are, or are not bound to their endpoints", len(plain), total)
	case plainURLs > 0:
		e.r.Warn(checkSecrets, doctor.Run("walhook endpoints reseal"), "%d of %d endpoints have user name and password of their URL in clear", plainURLs, total)
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
