//go:build !unix

package deliver

import (
	"net"
	"syscall"
)

// readNow reads what has arrived, and returns errNothingHere instead of waiting long.
func readNow(conn net.Conn, _ syscall.RawConn, b []byte) (int, error) { return readShortly(conn, b) }

// canPeek says that readable works.
const canPeek = false

func readable(uintptr) bool { return true }
