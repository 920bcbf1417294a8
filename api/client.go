package api

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	realclientip "github.com/realclientip/realclientip-go"
)

// clients says whom a request is from. A proxy that is trusted says it for the
// others.
type clients struct {
	trusted []netip.Prefix
	named   []realclientip.Strategy // by each header that names clients
}

// The headers in which a proxy says whom it has a request from (RFC 7239).
var clientHeaders = []string{"Forwarded", "X-Forwarded-For"}

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

// of is the address that a request counts for. Behind trusted proxies it is the
// last one in their headers that is no proxy of ours; what stands before it,
// anybody may have written. Where a header cannot be read, or two disagree, of
// which one may be the client's own, it is the proxy.
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
