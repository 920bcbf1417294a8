package api

import (
	"context"
	"crypto/sha256"

	"walhook/schemas"
)

// Principal is on whose behalf this process calls its own API: a session of the portal,
// or an operator who has shown the operator's token there. Nothing of a request from
// outside makes one.
type Principal struct {
	// Session is the id of the portal's session. The call ends with it.
	Session string
	// Account is the one account of the session; "" for an operator.
	Account string
	// Maker is the account whose token made the session's link; "" where an operator's did.
	Maker    string
	Operator bool
	// Name stands in the audit.
	Name string
	// Proof takes the place of what is secret of a token for an Idempotency-Key.
	Proof [sha256.Size]byte
}

type principalKey struct{}

// As returns a context for a call of the API's handler within the process. The call
// passes the same checks as one with a token: of the account, its limits, its fields.
func As(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, &p)
}

func principalOf(ctx context.Context) *Principal {
	p, _ := ctx.Value(principalKey{}).(*Principal)
	return p
}

// admit determines whether the account of a call belongs to the principal.
func (p *Principal) admit(c *call) *failure {
	c.who, c.proof = p.Name, p.Proof
	switch {
	case p.Operator:
		c.operator = true
		if c.whole || isID(c.account, schemas.MaxAccountBytes) {
			return nil
		}
	case p.Session != "" && p.Account != "":
		c.session, c.payer = true, p.Account
		if c.account == p.Account {
			return nil
		}
	}
	return notFound("account not found")
}
