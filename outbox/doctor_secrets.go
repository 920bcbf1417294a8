package outbox

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"walhook/doctor"
	"walhook/outbox/seal"
)

const (
	storedSecretsSQL = `
		SELECT account, webhook, coalesce(secret, ''), previous_secret, array_remove(older_secrets, NULL), coalesce(url, ''), header_names, header_values, ` + seal.StrictSQL + `, ` + seal.StrictURLSQL + `
		FROM walhook.endpoint WHERE deleted_at IS NULL ORDER BY id LIMIT 100000`

	keyIDSQL = `SELECT coalesce((SELECT key_id FROM walhook.sealing), '')`
)

// storedSecret is what an endpoint has that may be encrypted.
type storedSecret struct {
	seal.Holder
	secret   string
	previous *string
	older    []string
	url      string
	names    []string // of headers
	values   []string
	strict   bool
	urls     bool
}

// kindOfSecret is what is to be said of an endpoint's secrets.
type kindOfSecret int

const (
	secretSealed    kindOfSecret = iota // as it should be
	secretPlain                         // in clear, and taken
	secretLoose                         // encrypted, but not for its endpoint, and taken
	urlPlain                            // user information in clear, and taken
	headerPlain                         // a header's value in clear, and taken
	secretNoKey                         // encrypted, and there is no key
	secretLocked                        // it does not open
	secretRefused                       // in clear or loose, although reseal has been run
	secretMisplaced                     // another endpoint's
	urlRefused
	urlLocked
	headerRefused
	headerLocked
)

// classifySecret says how one secret is stored.
func classifySecret(s seal.Sealer, of seal.Holder, stored string, strict bool) kindOfSecret {
	_, err := s.Open(stored, of, strict)
	bound, sealed := seal.IsBound(stored), seal.IsSealed(stored)
	switch {
	case err == nil && bound:
		return secretSealed
	case err == nil && sealed:
		return secretLoose
	case err == nil:
		return secretPlain
	case !bound && strict:
		return secretRefused
	case !s.HasKey():
		return secretNoKey
	}
	return secretLocked
}

// classify gives the worst that there is to say of an endpoint.
func (one *storedSecret) classify(s seal.Sealer) kindOfSecret {
	worst := classifySecret(s, one.Holder, one.secret, one.strict)
	if one.previous != nil {
		worst = max(worst, classifySecret(s, one.Holder, *one.previous, one.strict))
	}
	for _, older := range one.older {
		worst = max(worst, classifySecret(s, one.Holder, older, one.strict))
	}
	if worst >= secretNoKey {
		return worst
	}
	_, err := s.OpenURL(one.url, one.Holder, one.urls)
	switch plain := seal.IsPlainURL(one.url); {
	case err != nil && plain:
		return urlRefused
	case err != nil && !s.HasKey():
		return secretNoKey
	case err != nil:
		return urlLocked
	case plain && worst == secretSealed:
		worst = urlPlain
	}
	return max(worst, one.classifyHeaders(s))
}

// classifyHeaders gives the worst that there is to say of an endpoint's headers.
func (one *storedSecret) classifyHeaders(s seal.Sealer) (worst kindOfSecret) {
	for i, name := range one.names {
		kind := classifySecret(s, one.Header(one.url, name), one.values[i], one.strict)
		switch kind {
		case secretPlain, secretLoose:
			kind = headerPlain
		case secretRefused:
			kind = headerRefused
		case secretLocked:
			kind = headerLocked
		}
		worst = max(worst, kind)
	}
	return worst
}

// owner finds the endpoint that a secret was encrypted for.
func (one *storedSecret) owner(s seal.Sealer, all []storedSecret) (seal.Holder, bool) {
	const enough = 20_000
	for i := range min(len(all), enough) {
		if _, err := s.Open(one.secret, all[i].Holder, true); err == nil {
			return all[i].Holder, true
		}
	}
	return seal.Holder{}, false
}

// lookAtSecrets looks at how the endpoints' secrets are stored.
func (e *examination) lookAtSecrets(ctx context.Context) error {
	secrets, err := seal.New(e.cfg.SecretKey)
	if err != nil {
		return err
	}
	var keyID string
	if err := e.s.QueryRow(ctx, keyIDSQL).Scan(&keyID); err != nil {
		return err
	}
	rows, err := e.s.Query(ctx, storedSecretsSQL)
	if err != nil {
		return err
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (one storedSecret, err error) {
		return one, r.Scan(&one.Account, &one.Webhook, &one.secret, &one.previous, &one.older, &one.url, &one.names, &one.values, &one.strict, &one.urls)
	})
	if err != nil {
		return err
	}
	found := map[kindOfSecret][]string{} // names of endpoints
	for i := range all {
		kind := all[i].classify(secrets)
		found[kind] = append(found[kind], endpointName(all[i].Holder))
	}
	if locked := found[secretLocked]; len(locked) > 0 && !e.otherKey(secrets, keyID, len(locked), len(all), found) {
		e.separateMoved(secrets, all, found)
	}
	e.sayOfSecrets(found, len(all))
	return nil
}

// endpointName is how commands name an endpoint.
func endpointName(of seal.Holder) string { return of.Account + "/" + of.Webhook }

// otherKey reports a key that is not the one that secrets were stored under,
// and says whether that is so.
func (e *examination) otherKey(secrets seal.Sealer, keyID string, locked, total int, found map[kindOfSecret][]string) bool {
	opens := len(found[secretSealed]) + len(found[secretLoose]) + len(found[urlPlain]) + len(found[urlLocked]) + len(found[urlRefused]) +
		len(found[headerPlain]) + len(found[headerLocked]) + len(found[headerRefused])
	if keyID == secrets.KeyID() || keyID == "" && opens > 0 {
		return false
	}
	if keyID != "" && opens > 0 {
		e.r.Fail(checkSecrets, doctor.Run("walhook endpoints reseal --old-secret-key=KEY"),
			"--secret-key is not the key of the last 'endpoints reseal': another key encrypted %d of %d secrets (%s)",
			locked, total, doctor.List(found[secretLocked], fewNames))
	} else {
		fix := doctor.Steps{{Kind: doctor.Setting, Text: "--secret-key=KEY", Note: "the key that encrypted them"}}
		e.r.Fail(checkSecrets, fix, "none of %s can be decrypted: --secret-key is not the key that encrypted them, and walhook cannot sign anything",
			doctor.Count(total, "secret"))
	}
	delete(found, secretLocked)
	return true
}

// separateMoved takes those that were moved from the row of another endpoint from
// those that were edited; the key is the right one.
func (e *examination) separateMoved(secrets seal.Sealer, all []storedSecret, found map[kindOfSecret][]string) {
	const enough = 20
	for i := range all {
		if len(found[secretMisplaced]) == enough {
			return
		}
		name := endpointName(all[i].Holder)
		at := slices.Index(found[secretLocked], name)
		if at < 0 {
			continue
		}
		if whose, ok := all[i].owner(secrets, all); ok {
			found[secretLocked] = slices.Delete(found[secretLocked], at, at+1)
			found[secretMisplaced] = append(found[secretMisplaced], fmt.Sprintf("%s has that of %s", name, endpointName(whose)))
		}
	}
}

// sayOfSecrets has a sentence for each kind.
func (e *examination) sayOfSecrets(found map[kindOfSecret][]string, total int) {
	rotate := doctor.Steps{{Kind: doctor.Command, Text: "walhook endpoints rotate ACCOUNT --webhook ID",
		Note: "a new secret for each of them, once you know who wrote to the outbox; all other events are delivered"}}
	reseal := doctor.Run("walhook endpoints reseal")
	again := doctor.Steps{{Kind: doctor.Shell, Text: "# set the URL again, in the account's row or through the API", Note: "once you know who wrote to the outbox"}}
	headers := doctor.Steps{{Kind: doctor.Shell, Text: "# set the webhook's headers again, through the API or in the portal", Note: "once you know who wrote to the outbox"}}
	key := doctor.Steps{{Kind: doctor.Setting, Text: "--secret-key=KEY", Note: "the key that encrypted them"}}
	newKey := doctor.Steps{{Kind: doctor.Setting, Text: "--secret-key=$(head -c 32 /dev/urandom | base64)",
		Note: "of every walhook process on this outbox, and keep it: without it the secrets are lost"}}
	for _, s := range []struct {
		kind kindOfSecret
		say  func(string, doctor.Steps, string, ...any)
		fix  doctor.Steps
		text string // after how many there are of what
		what string
	}{
		{secretNoKey, e.r.Fail, key, "encrypted, and --secret-key is not set: those endpoints are held", "secret"},
		{secretMisplaced, e.r.Fail, rotate, "stored in the row of another endpoint: rows of walhook.endpoint were exchanged or copied, and those endpoints are held", "secret"},
		{secretLocked, e.r.Fail, rotate, "damaged: --secret-key is the right key, so somebody edited the stored text, it comes from a deleted endpoint, or a walhook with another key stored it ('endpoints reseal --old-secret-key' reads that); those endpoints are held", "secret"},
		{secretRefused, e.r.Fail, rotate, "not encrypted for the endpoint, although 'endpoints reseal' has run: something else wrote to walhook.endpoint, and those endpoints are held", "secret"},
		{urlLocked, e.r.Fail, again, "damaged: user name and password were stored for another endpoint or another host, and those endpoints are held", "URL"},
		{urlRefused, e.r.Fail, again, "refused: user name and password are in clear, although 'endpoints reseal' has run, and those endpoints are held", "URL"},
		{headerLocked, e.r.Fail, headers, "without usable headers: a value was edited, or stored for another endpoint, name, host or port, and those endpoints are held", "endpoint"},
		{headerRefused, e.r.Fail, headers, "without usable headers: a value is not encrypted, although 'endpoints reseal' has run, and those endpoints are held", "endpoint"},
	} {
		if names := found[s.kind]; len(names) > 0 {
			s.say(checkSecrets, s.fix, "%d of %d %s %s %s (%s)", len(names), total, s.what+"s", doctor.Are(len(names)), s.text, doctor.List(names, fewNames))
		}
	}
	plain, loose, urls, values := len(found[secretPlain]), len(found[secretLoose]), len(found[urlPlain]), len(found[headerPlain])
	switch noKey := len(e.cfg.SecretKey) == 0; {
	case noKey && plain > 0:
		e.r.Warn(checkSecrets, newKey, "%s %s stored in clear: --secret-key is not set", doctor.Count(plain, "signing secret"), doctor.Are(plain))
	case noKey && total == 0:
		e.r.Warn(checkSecrets, newKey, "--secret-key is not set: signing secrets will be stored in clear")
	case plain+loose > 0:
		e.r.Warn(checkSecrets, reseal, "%d of %d signing secrets %s stored in clear, or %s not bound to the endpoint",
			plain+loose, total, doctor.Are(plain+loose), doctor.Are(plain+loose))
	case urls > 0:
		e.r.Warn(checkSecrets, reseal, "%d of %d endpoints %s user name and password of %s URL in clear", urls, total,
			doctor.Choose(urls, "has", "have"), doctor.Choose(urls, "its", "their"))
	case values > 0:
		e.r.Warn(checkSecrets, reseal, "%d of %d endpoints %s values of headers in clear", values, total, doctor.Choose(values, "has", "have"))
	default:
		e.r.OK(checkSecrets, "%s, all encrypted", doctor.Count(total, "signing secret"))
	}
}

// fewNames is how many endpoints a finding names.
const fewNames = 5
