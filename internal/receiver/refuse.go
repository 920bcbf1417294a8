package receiver

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// Refusal is an address that refuses connections while it is open: a port that is bound and
// not listened on, so no other process can use it.
type Refusal struct {
	socket int
	port   int
}

// Refuse takes a port of 127.0.0.1.
func Refuse() (*Refusal, error) {
	syscall.ForkLock.RLock()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(socket)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("take a port: %w", os.NewSyscallError("socket", err))
	}
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		_ = syscall.Close(socket)
		return nil, fmt.Errorf("take a port: %w", os.NewSyscallError("bind", err))
	}
	name, err := syscall.Getsockname(socket)
	if err != nil {
		_ = syscall.Close(socket)
		return nil, fmt.Errorf("take a port: %w", os.NewSyscallError("getsockname", err))
	}
	return &Refusal{socket: socket, port: name.(*syscall.SockaddrInet4).Port}, nil
}

// URL returns an account's URL, which refuses connections.
func (r *Refusal) URL(account string) string {
	return "http://127.0.0.1:" + strconv.Itoa(r.port) + pathPrefix + account
}

// Close releases the port.
func (r *Refusal) Close() error { return syscall.Close(r.socket) }
