// Package seal encrypts what the outbox stores and must not show: the secrets of
// endpoints, the user name and password of their URLs, the values of their headers, the
// columns of accounts that rules use, and answers to requests with an Idempotency-Key. It is pure: packages outbox
// and outbox/admin read and write the rows.
//
//	secret, for its endpoint ──Seal──▶ sealed:v2:…            ──Open──▶ secret
//	https://user:pw@host/    ──SealURL──▶ https://sealed.v2.…@host/ ──OpenURL──▶ …
//
// It promises that a secret sealed for one endpoint opens for no other, and that the user
// information of a URL opens with the rest of that URL only. So a person who can write
// into the outbox, and has no key, cannot move a secret to another account or a password
// to another host.
//
// Without a key the outbox stores everything unencrypted. With a key it still reads what it
// stored before, until 'walhook endpoints reseal' has encrypted all of it. From then on
// it refuses what is not sealed for its endpoint ([StrictSQL], [StrictURLSQL]).
//
// An error names --secret-key or the command that helps, and no part of a secret.
//
// It does not rotate secrets and does not sign.
package seal
