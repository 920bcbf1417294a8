package deliver

import (
	"net/netip"
	"strings"
	"testing"

	"walhook/doctor"
)

func findingOf(t *testing.T, findings []doctor.Finding, id string) doctor.Finding {
	t.Helper()
	for _, f := range findings {
		if f.ID == id {
			return f
		}
	}
	t.Fatalf("no finding of %s", id)
	return doctor.Finding{}
}

func TestExamine_TriesTheEgressGuard(t *testing.T) {
	t.Parallel()
	allow := func(network string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(network)} }
	for _, test := range []struct {
		name string
		c    Config
		want doctor.Status
		says string
	}{
		{"public addresses only", Config{}, doctor.OK, "nothing reached this machine"},
		{"a network elsewhere", Config{AllowCIDR: allow("10.0.0.0/8")}, doctor.OK, "10.0.0.0/8 allowed"},
		{"this machine", Config{AllowCIDR: allow("127.0.0.0/8")}, doctor.OK, "may reach this machine"},
		{"everything", Config{AllowCIDR: allow("0.0.0.0/0")}, doctor.Warning, "every address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := findingOf(t, Examine(t.Context(), test.c), checkGuard)
			if f.Status != test.want || !strings.Contains(f.Evidence, test.says) || f.Bad() != (len(f.Mend) > 0) {
				t.Errorf("got %+v", f)
			}
		})
	}
}

// A guard that is not asked is found by what gets through.
func TestExamine_FindsAGuardThatLetsThrough(t *testing.T) {
	t.Parallel()
	courier := newHTTP(Config{}.WithDefaults())
	defer courier.Close()
	courier.dialer.net.Control = nil
	r := doctor.NewReport(Checks()...)
	if err := examineGuard(t.Context(), courier, r); err != nil {
		t.Fatal(err)
	}
	if f := findingOf(t, r.Findings(), checkGuard); f.Status != doctor.Failed {
		t.Errorf("got %+v", f)
	}
}

func TestExamine_TriesTheEgressAddress(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]doctor.Status{"127.0.0.1": doctor.OK, "192.0.2.1": doctor.Failed, "": doctor.OK} {
		var c Config
		if address != "" {
			c.EgressAddress = netip.MustParseAddr(address)
		}
		if f := findingOf(t, Examine(t.Context(), c), checkAddress); f.Status != want {
			t.Errorf("%q: got %+v", address, f)
		}
	}
}
