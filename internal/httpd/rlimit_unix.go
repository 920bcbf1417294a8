//go:build unix

package httpd

import "syscall"

// Descriptors is how many files and sockets this process may have open; 0 where
// that is not known. Go raises the soft limit to the hard one when it starts.
func Descriptors() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return uint64(limit.Cur)
}
