//go:build unix

package sender

import "syscall"

// gone says that a kept line is of no use: the other side has closed it, or has
// said something that nobody asked for.
func (l *line) gone() bool {
	if l.socket == nil {
		return false
	}
	var byte [1]byte
	gone := true
	err := l.socket.Read(func(fd uintptr) bool {
		n, err := syscall.Read(int(fd), byte[:])
		gone = n >= 0 || err != syscall.EAGAIN && err != syscall.EWOULDBLOCK && err != syscall.EINTR
		return true // whatever it is: do not wait
	})
	return err != nil || gone
}
