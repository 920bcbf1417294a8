//go:build !unix

package main

import (
	"io/fs"
	"os"
)

// sameOwner does nothing: files of this system have no owner by number.
func sameOwner(*os.File, fs.FileInfo) error { return nil }
