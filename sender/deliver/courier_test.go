package deliver

import (
	"net/netip"
	"testing"
)

// What a URL says itself is judged at once; a name is not looked up, so that
// nobody learns which names there are.
func TestHTTP_RefusesAddressesInEveryFormAndLooksNoNameUp(t *testing.T) {
	t.Parallel()
	c, err := NewHTTP(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, address := range []string{
		"http://127.0.0.1/", "http://127.1/", "http://0/", "http://2130706433/", "http://0x7f000001/", "http://0177.1/", "http://0X7F.0.0.1/",
		"http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://10.0.0.1./", "http://[::1]/", "http://[::ffff:10.0.0.1]/", "http://[fe80::1%25eth0]/",
		"http://[64:ff9b::7f00:1]/", "http://169.254.169.254:8080/", "http://user:pass@192.168.0.1/", "http://0xa9fea9fe/", "https://LOCALHOST./", "http://a.localhost/",
	} {
		if c.CheckHost(address) == nil {
			t.Errorf("%s is taken", address)
		}
	}
	for _, address := range []string{
		"http://8.8.8.8/", "http://[2606:4700::1111]/", "https://example.com/", "http://intranet/", "http://postgres.internal:5432/",
		"http://no-such-name.invalid/", "http://metadata.google.internal/",
	} {
		if err := c.CheckHost(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	open, err := NewHTTP(Config{AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for _, address := range []string{"http://127.0.0.1/", "http://2130706433/", "http://localhost:8080/"} {
		if err := open.CheckHost(address); err != nil {
			t.Errorf("%s, in an allowed network: %v", address, err)
		}
	}
}
