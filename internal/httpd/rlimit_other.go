//go:build !unix

package httpd

// Descriptors returns how many files and sockets this process may open; 0 if that is not
// known.
func Descriptors() uint64 { return 0 }
