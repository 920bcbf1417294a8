package pgsession

import (
	"errors"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const hasUserTimeout, hasPeer = true, true

// userTimeout sets how long sent data may stay unacknowledged.
func userTimeout(wait time.Duration) func(network, address string, c syscall.RawConn) error {
	return func(network, _ string, c syscall.RawConn) (err error) {
		if network == "unix" {
			return nil
		}
		if controlErr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(wait.Milliseconds()))
		}); controlErr != nil {
			return controlErr
		}
		return err
	}
}

// checkPeer checks whether the other end of a Unix socket belongs to the named user. It
// accepts other connections.
func checkPeer(conn net.Conn, name string) error {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	if controlErr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); controlErr != nil || err != nil {
		return errors.Join(controlErr, err)
	}
	owner, err := user.LookupId(strconv.FormatUint(uint64(peer.Uid), 10))
	if err != nil {
		return err
	}
	if owner.Username != name {
		return fmt.Errorf("requirepeer is %s, and the server runs as %s", name, owner.Username)
	}
	return nil
}
