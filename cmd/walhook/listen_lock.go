package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

var errLockHeld = errors.New("another process has the lock")

// noLocksError is a file system or an operating system without locks of files.
type noLocksError struct{ cause error }

func (e *noLocksError) Error() string { return fmt.Sprintf("no locks of files: %v", e.cause) }
func (e *noLocksError) Unwrap() error { return e.cause }

// cursorLock is the file .NAME.lock beside a cursor file NAME. The cursor file itself
// cannot carry the lock, since each place replaces it. The zero value has no lock.
//
// The file stays when listen ends. Its name may not be removed while others may have it
// open: one of them would lock the file without a name, and the next process a new file
// of that name, and both would run.
type cursorLock struct{ file *os.File }

// lockTries is how often somebody may delete the file while listen locks it. A file system
// that gives each open file another identity comes to the same.
const lockTries = 16

// maxHolder is more than a process writes about itself.
const maxHolder = 512

// take locks the file by try, which is lockNow. It does not wait.
func (l *cursorLock) take(cursor string, try func(*os.File) error) error {
	path := filepath.Join(filepath.Dir(cursor), "."+filepath.Base(cursor)+".lock")
	for range lockTries {
		if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
			return fmt.Errorf("%s is no regular file; delete it", path)
		}
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|openNoFollow, 0o600)
		if err != nil {
			return fmt.Errorf("%w; listen has to write it, and others in its directory", err)
		}
		if err := try(file); err != nil {
			if errors.Is(err, errLockHeld) {
				err = &cursorHeldError{cursor, holder(file)}
			}
			return errors.Join(err, file.Close())
		}
		named, err := isNamed(file, path)
		if named {
			err = sign(file)
		}
		if named && err == nil {
			l.file = file
			return nil
		}
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		} // or somebody deleted it meanwhile: others lock another one
	}
	return &noLocksError{fmt.Errorf("%s is another file each time", path)}
}

// isNamed says whether path still names the file.
func isNamed(file *os.File, path string) (bool, error) {
	has, err := file.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(has, named), err
}

// sign writes into the file which process has the lock. The host tells processes of
// containers and of a shared file system apart.
func sign(file *os.File) error {
	host, _ := os.Hostname() // "" says less
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+" "+host+"\n"), 0)
	return err
}

// holder returns which process wrote that it has the lock; "" where none did.
func holder(file *os.File) string {
	text, err := io.ReadAll(io.NewSectionReader(file, 0, maxHolder))
	if err != nil {
		return ""
	}
	pid, host, whole := bytes.Cut(bytes.TrimSuffix(text, []byte("\n")), []byte(" "))
	if _, err := strconv.ParseUint(string(pid), 10, 32); err != nil || !whole {
		return ""
	}
	if len(host) == 0 {
		return "process " + string(pid)
	}
	return fmt.Sprintf("process %s on %s", pid, printable(string(host)))
}

// release gives the lock to the next process, with a file that names none.
func (l *cursorLock) release() error {
	if l.file == nil {
		return nil
	}
	err := errors.Join(l.file.Truncate(0), l.file.Close())
	l.file = nil
	return err
}

// cursorHeldError is a cursor file that another listen uses.
type cursorHeldError struct{ path, holder string }

func (e *cursorHeldError) Error() string {
	by := ""
	if e.holder != "" {
		by = ": " + e.holder
	}
	return fmt.Sprintf("--cursor-file: another listen uses %s%s; end that one, or give this one a file of its own", e.path, by)
}
