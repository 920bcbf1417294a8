package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"walhook/doctor"
	"walhook/outbox"
)

// The checks of where deliveries go, by the ids that do not change.
const (
	checkGuard   = "egress.guard"
	checkAddress = "egress.address"
)

// Checks names every check of [Examine], in its order.
func Checks() []string { return []string{checkGuard, checkAddress} }

// Examine tries the egress guard on this machine, and whether deliveries can
// leave from the address that they should.
func Examine(ctx context.Context, c Config) []doctor.Finding {
	c = c.WithDefaults()
	r := doctor.NewReport(Checks()...)
	h := newHTTP(c)
	defer h.Close()
	if err := examineGuard(ctx, h, r); err != nil {
		r.Warn(checkGuard, doctor.Run("walhook doctor"), "it could not be tried: %v", err)
	}
	examineAddress(ctx, c, r)
	return r.Findings()
}

// probeSecret signs attempts that must not arrive anywhere.
const probeSecret = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// loopbackNames are ways to write this machine's address that resolvers, the C
// library and net/http understand.
func loopbackNames() []string {
	return []string{"127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]", "127。0。0。1", "①②⑦.⓪.⓪.①", "0.0.0.0"}
}

// examineGuard makes a listener on this machine, and attempts at it as every
// delivery is made. Unless this machine is allowed, none may get there.
func examineGuard(ctx context.Context, h *HTTP, r *doctor.Report) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("try the egress guard: no end in time"))
	defer cancel()
	var seen atomic.Int64
	address, stop, err := listenLocally(ctx, &seen)
	if err != nil {
		return err
	}
	defer stop()
	_, port, _ := net.SplitHostPort(address)
	for _, host := range loopbackNames() {
		endpoint := outbox.Endpoint{URL: "http://" + host + ":" + port + "/", Secrets: []string{probeSecret}}
		h.deliver(ctx, endpoint, outbox.Event{WebhookID: "test_doctor", Body: []byte("{}")}, time.Now())
	}
	// Whatever came before this one has been seen once it is answered.
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return err
	}
	direct := http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	response, err := direct.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	judgeGuard(h.config, seen.Load()-1, r)
	return nil
}

// listenLocally counts the connections that this machine gets at address.
func listenLocally(ctx context.Context, seen *atomic.Int64) (address string, stop func(), err error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1024))
			w.WriteHeader(http.StatusNoContent)
		}),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				seen.Add(1)
			}
		},
		ReadHeaderTimeout: time.Second,
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // until it is closed
	}()
	return listener.Addr().String(), func() {
		_ = server.Close()
		<-ended
	}, nil
}

func judgeGuard(c Config, seen int64, r *doctor.Report) {
	var names []string
	open := false
	for _, network := range c.AllowCIDR {
		names = append(names, network.String())
		open = open || network.Bits() == 0
	}
	allowed := c.guard().allowed(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	switch {
	case seen > 0 && !allowed:
		r.Fail(checkGuard, doctor.Steps{{Kind: doctor.Shell, Text: "install another build of walhook, and do not run this one"}},
			"%s reached this machine, which no --allow-cidr holds", doctor.Count(int(seen), "connection"))
	case open:
		r.Warn(checkGuard, doctor.Steps{{Kind: doctor.Setting, Text: "--allow-cidr=", Note: "or the networks alone that endpoints are really in"}},
			"%s allows every address: an account's URL may lead into your own network", strings.Join(names, ", "))
	case allowed:
		r.OK(checkGuard, "%s allowed besides public addresses: deliveries may reach this machine", strings.Join(names, ", "))
	case len(names) > 0:
		r.OK(checkGuard, "%s allowed besides public addresses; nothing reached this machine", strings.Join(names, ", "))
	default:
		r.OK(checkGuard, "public addresses only; nothing reached this machine in %d disguises", len(loopbackNames()))
	}
}

// examineAddress tries whether a socket can be bound to the address.
func examineAddress(ctx context.Context, c Config, r *doctor.Report) {
	if !c.EgressAddress.IsValid() {
		r.OK(checkAddress, "any")
		return
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", net.JoinHostPort(c.EgressAddress.String(), strconv.Itoa(0)))
	if err != nil {
		r.Fail(checkAddress, doctor.Steps{{Kind: doctor.Setting, Text: "--egress-address=", Note: ownAddresses()}},
			"deliveries cannot leave from %s: %v", c.EgressAddress, err)
		return
	}
	_ = listener.Close()
	r.OK(checkAddress, "%s", c.EgressAddress)
}

// ownAddresses names what --egress-address may be, for people.
func ownAddresses() string {
	var names []string
	addresses, _ := net.InterfaceAddrs() // for people; none is none
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil && !prefix.Addr().IsLoopback() {
			names = append(names, prefix.Addr().String())
		}
	}
	return fmt.Sprintf("or an address of this machine: %s", strings.Join(names, ", "))
}
