package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// homePrefix is the prefix of a cluster's folder in a shared folder.
const homePrefix = "walhook-pg-"

// home is the folder of one cluster:
//
//	walhook-pg-123/     of this process; the server's user may only pass through
//	├ owner             locked while this process runs
//	├ server.log
//	└ data/             of the server's user
type home struct {
	dir      string
	account  *account
	owner    *os.File // holds the lock
	watchdog *watchdog
	logStart int64 // where the log of the current start begins
}

// makeHome removes folders of dead processes and creates a new one.
func makeHome(parent string, account *account) (*home, error) {
	parent, err := tempDir(parent, account)
	if err != nil {
		return nil, err
	}
	sweep(parent)
	dir, err := os.MkdirTemp(parent, homePrefix)
	if err != nil {
		return nil, fmt.Errorf("create a directory for the cluster: %w", err)
	}
	h := &home{dir: dir, account: account}
	if err := h.fill(); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare the cluster's directory: %w", err), h.remove())
	}
	return h, nil
}

func (h *home) fill() error {
	if h.account != nil {
		if err := os.Chmod(h.dir, 0o711); err != nil {
			return err
		}
	}
	if err := h.lock(); err != nil {
		return err
	}
	if err := os.Mkdir(h.data(), 0o700); err != nil {
		return err
	}
	if err := h.account.own(h.data()); err != nil {
		return err
	}
	log, err := h.openLog()
	if err != nil {
		return err
	}
	if err := log.Close(); err != nil {
		return err
	}
	h.watchdog, err = startWatchdog(h.dir)
	return err
}

// lock marks the folder as in use while this process runs. The file gets its name after it
// is locked, so that no sweep finds it unlocked.
func (h *home) lock() error {
	unnamed := filepath.Join(h.dir, "owner.new")
	owner, err := os.OpenFile(unnamed, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	h.owner = owner
	if _, err := owner.WriteString(strconv.Itoa(os.Getpid()) + "\n"); err != nil {
		return err
	}
	if err := syscall.Flock(int(owner.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return err
	}
	return os.Rename(unnamed, filepath.Join(h.dir, "owner"))
}

func (h *home) data() string    { return filepath.Join(h.dir, "data") }
func (h *home) logPath() string { return filepath.Join(h.dir, "server.log") }

func (h *home) openLog() (*os.File, error) {
	return os.OpenFile(h.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// forgetLog makes log return only later lines.
func (h *home) forgetLog() {
	if info, err := os.Stat(h.logPath()); err == nil {
		h.logStart = info.Size()
	}
}

// log returns the end of the log since forgetLog, at most 64 KiB.
func (h *home) log() []byte {
	file, err := os.Open(h.logPath())
	if err != nil {
		return nil
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil
	}
	start := max(h.logStart, info.Size()-64<<10)
	out, _ := io.ReadAll(io.NewSectionReader(file, start, info.Size()-start))
	return out
}

// write creates a file that only the server's user can read.
func (h *home) write(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return h.account.own(path)
}

// forgetPostmaster removes the pid file of a server that no longer runs, because another
// process may have its pid at the next start.
func (h *home) forgetPostmaster() error {
	err := os.Remove(filepath.Join(h.data(), "postmaster.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// remove ends the watchdog and removes the folder.
func (h *home) remove() error {
	err := os.RemoveAll(h.dir)
	if h.watchdog != nil {
		err = errors.Join(err, h.watchdog.release())
	}
	if h.owner != nil {
		err = errors.Join(err, h.owner.Close())
	}
	return err
}

// tempDir returns the parent folder of clusters. The server's user may be unable to enter
// the system's default.
func tempDir(parent string, account *account) (string, error) {
	if parent != "" {
		return parent, account.enters(parent)
	}
	var first error
	for _, dir := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		err := account.enters(dir)
		if err == nil {
			return dir, nil
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

// sweep removes clusters whose owner is dead. If it may not remove one, the next sweep of
// the owner's user does.
func sweep(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, homePrefix+"*"))
	for _, dir := range dirs {
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() || !ours(info) {
			continue
		}
		owner, err := os.OpenFile(filepath.Join(dir, "owner"), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > time.Hour {
				_ = os.RemoveAll(dir) // its process died before it could lock
			}
			continue
		}
		if syscall.Flock(int(owner.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			endOrphan(dir)
			_ = os.RemoveAll(dir)
		}
		_ = owner.Close()
	}
}

// ours keeps root from using a folder with the same prefix that another user created.
func ours(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}

// lockFile waits for a lock between processes and returns a function that releases it.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(err, file.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), file.Close())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// postmasterPID returns the first line of the data folder's pid file; 0 for none.
func postmasterPID(dir string) int {
	text, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, _ := strconv.Atoi(line)
	return max(pid, 0)
}
