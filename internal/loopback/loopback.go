// Package loopback gives tests addresses of this machine that stay theirs.
package loopback

import (
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"testing"
)

// Address is an address of this machine that nobody listens on, nor will while the
// test runs, but for the test. Its port is below those of outgoing connections and of
// listeners of any port (from 32768 on Linux), and other tests are kept off by a
// listener of the same port on another address of the loopback network.
func Address(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(10000 + rand.IntN(5000)) // those of package pgcluster are above
		claim, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", port))
		if err != nil {
			if runtime.GOOS != "linux" {
				break // only Linux has the whole network
			}
			continue
		}
		address := net.JoinHostPort("127.0.0.1", port)
		listener, err := net.Listen("tcp", address)
		if err != nil {
			claim.Close()
			continue
		}
		listener.Close()
		t.Cleanup(func() { claim.Close() })
		return address
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
