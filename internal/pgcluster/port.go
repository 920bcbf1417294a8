package pgcluster

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// freePort returns a free port on 127.0.0.1. It is below the ports of outgoing connections
// (from 32768 on Linux), so that no client occupies it when the server restarts.
func freePort() (int, error) {
	for range 50 {
		port := 15000 + rand.IntN(15000)
		if listener, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			return port, listener.Close()
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}
