//go:build unix

package deliver

import (
	"io"
	"net"
	"syscall"
)

// readNow reads what has arrived, and returns errNothingHere instead of waiting.
func readNow(conn net.Conn, socket syscall.RawConn, b []byte) (n int, err error) {
	if socket == nil {
		return readShortly(conn, b)
	}
	failed := socket.Read(func(fd uintptr) bool {
		n, err = syscall.Read(int(fd), b)
		return true // do not wait
	})
	switch {
	case failed != nil:
		return 0, failed
	case err == syscall.EAGAIN || err == syscall.EWOULDBLOCK || err == syscall.EINTR:
		return 0, errNothingHere
	case err != nil:
		return 0, err
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// canPeek says that readable works.
const canPeek = true

// readable says that there is something to read at a socket, and takes nothing: bytes, the
// end or an error.
func readable(fd uintptr) bool {
	var b [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		if err != syscall.EINTR {
			return err != syscall.EAGAIN && err != syscall.EWOULDBLOCK
		}
	}
}
