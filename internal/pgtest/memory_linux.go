package pgtest

import (
	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

const (
	sharedMemory = "/dev/shm"
	// memoryNeeded is what the machine has to have to spare, in bytes: servers of several
	// test binaries use it at a time.
	memoryNeeded = 12 << 30
)

// memoryDir is a folder in memory for clusters that do not sync anyway: creating a
// database makes some 300 files. It is "" where there is none with enough room.
func memoryDir() string {
	var fs unix.Statfs_t
	if unix.Statfs(sharedMemory, &fs) != nil || fs.Type != unix.TMPFS_MAGIC || unix.Access(sharedMemory, unix.W_OK) != nil ||
		fs.Bavail*uint64(fs.Bsize) < memoryNeeded {
		return ""
	}
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return ""
	}
	memory, err := proc.Meminfo()
	if err != nil || memory.MemAvailableBytes == nil || *memory.MemAvailableBytes < memoryNeeded {
		return ""
	}
	return sharedMemory
}
