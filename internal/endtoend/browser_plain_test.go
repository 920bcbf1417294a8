package endtoend

import (
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// ownAddress is an address of this machine in another network than the loopback one, or ""
// if it has none.
func ownAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if network, ok := one.(*net.IPNet); ok && network.IP.To4() != nil && network.IP.IsGlobalUnicast() {
			return network.IP.String()
		}
	}
	return ""
}

// At an address without TLS that is not of the loopback network a browser does not say by
// Sec-Fetch-Site that a form is the portal's own. People and operators enter all the same.
func TestBrowser_EntersOverPlainHTTP(t *testing.T) {
	t.Parallel()
	b := newBrowser(t) // skips
	own := ownAddress(t)
	if own == "" {
		t.Skip("SKIP: this machine has no IPv4 address but the loopback one")
	}
	_, port, err := net.SplitHostPort(loopback.Address(t))
	if err != nil {
		t.Fatal(err)
	}
	db := pgtest.Database(t)
	w := newWorld(t, db, func(int) string { return "" })
	address := net.JoinHostPort(own, port)
	startChild(t, "run", "--source", db.URL, "--slot", w.slot, "--listen", address, "--admin-token", chaosOperator)
	awaitReady(t, address)
	b.do(t, chromedp.Navigate(mustRun(t, "portal", accountName(0), "--outbox", db.URL, "--listen", address)))
	if evaluated[bool](t, b, "isSecureContext") {
		t.Fatalf("the browser takes %s for a secure address", address)
	}
	b.click(t, "Open")
	b.sees(t, "There is no webhook yet")
	b.do(t, chromedp.Click(`//header//button[.="Sign out"]`))
	b.click(t, "I operate this service")
	b.do(t, chromedp.SetValue("#token", chaosOperator), chromedp.Click("main button"))
	b.sees(t, "Fleet", "Every endpoint gets its events")

	// The browser also says that one header, which the portal sends with every page, is of no
	// use there.
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = slices.DeleteFunc(b.faults, func(fault string) bool {
		return strings.HasPrefix(fault, "The Cross-Origin-Opener-Policy header has been ignored, because the URL's origin was untrustworthy.")
	})
}
