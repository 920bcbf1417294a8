package loopback

import (
	"net"
	"testing"
)

func TestAddress_IsNobodyElses(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 500 {
		address := Address(t)
		if seen[address] {
			t.Fatalf("%s was given twice", address)
		}
		seen[address] = true
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Fatalf("somebody listens on %s", address)
		}
	}
	for address := range seen {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatalf("the test itself cannot listen: %v", err)
		}
		listener.Close()
		break
	}
}
