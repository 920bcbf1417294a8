//go:build !unix

package httpd

// Descriptors is how many files and sockets this process may have open; 0 where
// that is not known.
func Descriptors() uint64 { return 0 }
