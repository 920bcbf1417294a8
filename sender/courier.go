package sender

import (
	"context"
	"time"

	"walhook/outbox"
)

// Courier makes single attempts for whoever has no lanes, the API's test
// events, through the same egress guard as every delivery.
type Courier struct{ courier *courier }

// NewCourier prepares a courier; it dials nothing.
func NewCourier(c Config) (*Courier, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Courier{newCourier(c.withDefaults(), nil)}, nil
}

// Close ends the connections that are kept.
func (c *Courier) Close() { c.courier.close() }

// uniformMargin is how much longer than the limit for connecting an attempt
// without an answer takes.
const uniformMargin = 250 * time.Millisecond

// Try makes one request for the event and says what it came to. It neither
// stores nor repeats anything.
func (c *Courier) Try(ctx context.Context, e outbox.Endpoint, event outbox.Event) outbox.Attempt {
	began := time.Now()
	a := c.courier.deliver(ctx, e, event, began)
	if a.status == 0 {
		// How long a failure takes tells a closed port from a filtered one, and a
		// name that does not exist from one that leads inside.
		_ = pause(ctx, time.Until(began.Add(c.courier.config.ConnectTimeout+uniformMargin))) // an end of ctx needs no wait
	}
	res := a.result(began, time.Now())
	kind := res.outcome.kind
	if kind == outcomeHeld && res.failure.shown() == failUnreachable {
		kind = outcomeRetry // that our own network refuses an address is not shown either
	}
	return res.attempt(1, e.Revision, kind)
}

// CheckHost says whether the host of a URL is, in whatever form, an address that
// deliveries must not go to, a [*BlockedAddressError], or its port is not allowed, a
// [*BlockedPortError]. A name is not looked up:
// what it leads to decides when it is dialled, and who sets a URL does not learn
// which names there are. The URL's syntax has been checked.
func (c *Courier) CheckHost(address string) error { return c.courier.config.guard().checkURL(address) }
