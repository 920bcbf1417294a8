// Package seal encrypts what the outbox keeps and must not show: the secrets of
// endpoints, the user name and password of their URLs, the columns of accounts that
// rules ask for, and answers to requests with an Idempotency-Key. It is pure: who reads
// and writes the rows is outbox and outbox/admin.
//
//	secret, for its endpoint ──Seal──▶ sealed:v2:…            ──Open──▶ secret
//	https://user:pw@host/    ──SealURL──▶ https://sealed.v2.…@host/ ──OpenURL──▶ …
//
// It promises that what is sealed for one endpoint opens for no other, and that user
// information of a URL opens with the rest of that URL only. So whoever can write into
// the outbox, and has no key, cannot move a secret to another account or a password to
// another host.
//
// Without a key everything is stored as it is. With one, what was stored before it is
// read still, until 'walhook endpoints reseal' has encrypted all of it: what is not
// sealed for its endpoint is refused then ([StrictSQL], [StrictURLSQL]).
//
// An error names --secret-key or the command that helps, and no part of a secret.
//
// It does not rotate secrets and does not sign.
package seal
