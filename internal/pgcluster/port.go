package pgcluster

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// freePort is a port on 127.0.0.1 that nothing listens on. It lies below the
// ranges that systems take outgoing connections' ports from (32768 up on
// Linux), so that a busy client cannot hold it when the server restarts.
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
