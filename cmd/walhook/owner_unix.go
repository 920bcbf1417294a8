//go:build unix

package main

import (
	"io/fs"
	"os"
	"syscall"
)

// sameOwner gives a file the owner and the group of another one.
func sameOwner(file *os.File, other fs.FileInfo) error {
	was, ok := other.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if is, ok := info.Sys().(*syscall.Stat_t); ok && is.Uid == was.Uid && is.Gid == was.Gid {
		return nil
	}
	return file.Chown(int(was.Uid), int(was.Gid))
}
