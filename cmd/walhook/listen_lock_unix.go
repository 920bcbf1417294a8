//go:build unix

package main

import (
	"errors"
	"os"
	"syscall"
)

// openNoFollow keeps a link that somebody put into a shared directory from leading the
// lock to another file, and a pipe from making listen wait.
const openNoFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// lockNow locks a file for as long as it is open, at the latest until the process ends,
// however it ends. It is errLockHeld where another process has the lock, and a
// [*noLocksError] where the file system has none.
func lockNow(file *os.File) error {
	for {
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != syscall.EINTR {
			return lockError(err)
		}
	}
}

// lockError explains what flock answered. ENOLCK is NFS's without a lock service.
func lockError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		return errLockHeld
	case errors.Is(err, syscall.ENOLCK), errors.Is(err, errors.ErrUnsupported):
		return &noLocksError{err}
	}
	return os.NewSyscallError("flock", err)
}
