package api

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	realclientip "github.com/realclientip/realclientip-go"
)

// clients determines the address that a request comes from. It believes trusted
// proxies about the addresses of others.
type clients struct {
	trusted []netip.Prefix
	named   []realclientip.Strategy // by each header that names clients
}

// The headers in which a proxy names the client of a request (RFC 7239).
var clientHeaders = []string{"Forwarded", "X-Forwarded-For"}

// ClientAddress returns a function that determines the address to which a request
// counts, as the limits of wrong tokens do.
func ClientAddress(trusted []netip.Prefix) (func(*http.Request) netip.Addr, error) {
	c, err := newClients(trusted)
	return c.of, err
}

func newClients(trusted []netip.Prefix) (clients, error) {
	c := clients{trusted: trusted}
	var ranges []string
	for _, network := range trusted {
		ranges = append(ranges, network.String())
	}
	networks, err := realclientip.AddressesAndRangesToIPNets(ranges...)
	if err != nil {
		return c, fmt.Errorf("trusted proxies: %w", err)
	}
	for _, header := range clientHeaders {
		named, err := realclientip.NewRightmostTrustedRangeStrategy(header, networks)
		if err != nil {
			return c, fmt.Errorf("trusted proxies: %w", err)
		}
		c.named = append(c.named, named)
	}
	return c, nil
}

// of returns the address to which a request counts. Behind trusted proxies it is the
// last address in their headers that is not a trusted proxy; a client can forge
// everything before it. If a header cannot be parsed, or two headers disagree, of
// which the client may have sent one, it is the proxy's address.
func (c clients) of(r *http.Request) netip.Addr {
	from := peer(r.RemoteAddr)
	direct, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !slices.ContainsFunc(c.trusted, func(p netip.Prefix) bool { return p.Contains(direct.Addr().Unmap().WithZone("")) }) {
		return from
	}
	client := netip.Addr{}
	for i, header := range clientHeaders {
		if r.Header[header] == nil {
			continue
		}
		said := peerOf(c.named[i].ClientIP(r.Header, ""))
		if !said.IsValid() || client.IsValid() && client != said {
			return from
		}
		client = said
	}
	if client.IsValid() {
		return client
	}
	return from
}
