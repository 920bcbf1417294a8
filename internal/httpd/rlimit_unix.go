//go:build unix

package httpd

import "syscall"

// Descriptors returns how many files and sockets this process may open; 0 if that is not
// known. Go raises the soft limit to the hard one when it starts.
func Descriptors() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return uint64(limit.Cur)
}
