package sender

import (
	"context"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"golang.org/x/net/idna"

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

// lookupTimeout bounds a look at a name that somebody waits for.
const lookupTimeout = 3 * time.Second

// ErrUnresolved says that a host's name leads nowhere at the moment.
var ErrUnresolved = errors.New("the host's name cannot be resolved at the moment")

// CheckHost says whether the host of a URL leads to an address that deliveries
// may go to, as far as can be told before dialling: a [*BlockedAddressError]
// when none of its addresses is one, a [*BlockedPortError] for its port alone,
// [ErrUnresolved] when it has no address now. The
// URL's syntax has been checked.
func (c *Courier) CheckHost(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("url cannot be parsed") // err would show it
	}
	guard := c.courier.config.guard()
	if err := guard.checkPort(portOf(u)); err != nil {
		return err
	}
	host := u.Hostname()
	if ascii, err := idna.Lookup.ToASCII(host); err == nil {
		host = ascii // as net/http dials it
	}
	addresses, err := c.lookup(ctx, host)
	if err != nil || len(addresses) == 0 {
		return ErrUnresolved
	}
	if slices.ContainsFunc(addresses, guard.allowed) {
		return nil
	}
	return &BlockedAddressError{Address: addresses[0].Unmap().String()}
}

func (c *Courier) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lookupTimeout, errors.New("resolve the host of a URL"))
	defer cancel()
	return c.courier.dialer.net.Resolver.LookupNetIP(ctx, "ip", host)
}
