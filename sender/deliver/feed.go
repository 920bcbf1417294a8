package deliver

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"walhook/outbox"
	"walhook/outbox/address"
)

// accountHeader says to a feed whose event it gets (docs/CONTRACT.md §10).
const accountHeader = "walhook-account"

// headerText writes an account's id as the value of a header: as it is, with what is not
// visible ASCII and the percent sign percent-encoded.
func headerText(id string) string {
	return escapeBytes(id, func(c byte) bool { return c > ' ' && c < 0x7f && c != '%' })
}

// escapeBytes percent-encodes each byte that is not plain.
func escapeBytes(text string, plain func(byte) bool) string {
	const digits = "0123456789ABCDEF"
	i := 0
	for i < len(text) && plain(text[i]) {
		i++
	}
	if i == len(text) {
		return text
	}
	var b strings.Builder
	b.WriteString(text[:i])
	for ; i < len(text); i++ {
		if c := text[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// forFeeds returns the configuration of requests to the operator's feeds. The operator
// names their URLs, so they may be in any network but the denied ones, and on any port.
func (c Config) forFeeds() Config {
	c.AllowCIDR = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	c.AllowPorts = []PortRange{{1, 65535}}
	return c
}

// Destinations deliver an event to whatever its endpoint is: [HTTP] for an account's
// URL; for an operator's feed another one, which reaches private networks, or NATS
// JetStream. It is safe for many goroutines. [New] makes one.
type Destinations struct {
	accounts, feeds *HTTP
	nats            *natsFeeds
}

// New prepares the destinations; it dials nothing.
func New(c Config) (*Destinations, error) {
	accounts, err := NewHTTP(c)
	if err != nil {
		return nil, err
	}
	feeds, err := NewHTTP(c.forFeeds())
	if err != nil {
		return nil, fmt.Errorf("feeds: %w", err)
	}
	for _, one := range c.NATSCredentials {
		if err := one.Check(); err != nil {
			return nil, err
		}
	}
	return &Destinations{accounts, feeds, newNATSFeeds(&feeds.config, feeds.dialer)}, nil
}

// Deliver makes one attempt. See [Destination].
func (d *Destinations) Deliver(ctx context.Context, e outbox.Endpoint, event outbox.Event) Result {
	switch {
	case e.Feed && address.IsServers(e.URL):
		return d.nats.Deliver(ctx, e, event)
	case e.Feed:
		return d.feeds.Deliver(ctx, e, event)
	}
	return d.accounts.Deliver(ctx, e, event)
}

// DeliverBatch makes one attempt for several events. See [Destination].
func (d *Destinations) DeliverBatch(ctx context.Context, e outbox.Endpoint, events []outbox.Event) Result {
	if e.Feed {
		return d.feeds.DeliverBatch(ctx, e, events)
	}
	return d.accounts.DeliverBatch(ctx, e, events)
}

// HostFault is that of an account's URL. See [HTTP.HostFault].
func (d *Destinations) HostFault(address string) error { return d.accounts.HostFault(address) }

// Close closes the connections, once no attempt is in flight.
func (d *Destinations) Close() {
	d.nats.close()
	d.accounts.Close()
	d.feeds.Close()
}
