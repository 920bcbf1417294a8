//go:build !linux

package pgsession

import (
	"net"
	"syscall"
	"time"
)

const hasUserTimeout, hasPeer = false, false

func userTimeout(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }

func checkPeer(net.Conn, string) error { return nil }
