package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// cursorFile keeps the place of a feed's reader through its end. The zero value keeps it
// in memory alone.
type cursorFile struct {
	path string
	kept string
	lock cursorLock
}

// maxCursorFile is more than a cursor has.
const maxCursorFile = 1024

// own makes the file this process's alone until release, and refuses where it is another
// one's. try is lockNow. Where there are no locks, it warns and continues: one listen
// works there as well, and keep notices another one, though late.
func (c *cursorFile) own(try func(*os.File) error, warnings io.Writer) error {
	if c.path == "" {
		return nil
	}
	if err := c.resolve(); err != nil {
		return usage(err)
	}
	err := c.lock.take(c.path, try)
	if none, ok := errors.AsType[*noLocksError](err); ok {
		fmt.Fprintln(warnings, printable(fmt.Sprintf("--cursor-file: %s cannot be locked (%v): make sure that no other listen uses it", c.path, none.cause)))
		return nil
	}
	if _, held := errors.AsType[*cursorHeldError](err); held || err == nil {
		return err
	}
	return usage(&cursorError{err})
}

func (c *cursorFile) release() error { return c.lock.release() }

// maxLinks is how many symbolic links Linux follows in a path.
const maxLinks = 40

// resolve follows the path's symbolic links, also to a file that does not exist yet, so that
// a link stays one, and each path to a file has the same lock.
func (c *cursorFile) resolve() error {
	for range maxLinks {
		to, err := os.Readlink(c.path)
		if err != nil {
			break // no link
		}
		if !filepath.IsAbs(to) {
			dir, err := filepath.EvalSymlinks(filepath.Dir(c.path))
			if err != nil {
				return fmt.Errorf("--cursor-file: %w", err)
			}
			to = filepath.Join(dir, to)
		}
		c.path = to
	}
	if info, err := os.Stat(c.path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("--cursor-file: %s is no regular file", c.path)
	}
	return nil
}

// read returns the cursor that is kept; "" where the file does not exist yet. It is an error
// where none can be kept.
func (c *cursorFile) read() (string, error) {
	if c.path == "" {
		return "", nil
	}
	if err := c.resolve(); err != nil {
		return "", err
	}
	text, err := os.ReadFile(c.path)
	there := !errors.Is(err, fs.ErrNotExist)
	if err != nil && there {
		return "", fmt.Errorf("--cursor-file: %w", err)
	}
	if try, err := c.create(); err != nil {
		return "", err
	} else if err := errors.Join(try.Close(), os.Remove(try.Name())); err != nil {
		return "", &cursorError{err}
	}
	if !there {
		return "", nil
	}
	c.kept = strings.TrimSpace(string(text))
	if c.kept == "" || len(c.kept) > maxCursorFile || strings.ContainsFunc(c.kept, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("--cursor-file: %s holds no cursor; delete it to begin with what happens from now on", c.path)
	}
	return c.kept, nil
}

// keep replaces the file, so that a reader that ends at any moment leaves a whole one.
func (c *cursorFile) keep(cursor string) error {
	if c.path == "" || cursor == c.kept {
		return nil
	}
	text, err := os.ReadFile(c.path)
	switch now := strings.TrimSpace(string(text)); {
	case err == nil && now != c.kept:
		return &cursorError{fmt.Errorf("%s has another place than this process wrote: give each listen a file of its own", c.path)}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return &cursorError{err}
	}
	file, err := c.create()
	if err != nil {
		return err
	}
	_, err = file.WriteString(cursor + "\n")
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(file.Name(), c.path)
	}
	if err != nil {
		return &cursorError{errors.Join(err, os.Remove(file.Name()))}
	}
	c.kept = cursor
	return nil
}

// create makes a file beside the one that it is to replace. Its name is always the same, so
// that a process which was killed leaves one at most, for the next one to use.
func (c *cursorFile) create() (*os.File, error) {
	path := filepath.Join(filepath.Dir(c.path), "."+filepath.Base(c.path)+".new")
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, &cursorError{fmt.Errorf("%s is no regular file; delete it", path)}
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC|openNoFollow, 0o600)
	if err != nil {
		return nil, &cursorError{err}
	}
	return file, nil
}

// cursorError is a place that cannot be kept: listen ends, since it would repeat without
// an end what it handed on.
type cursorError struct{ cause error }

func (e *cursorError) Error() string {
	return fmt.Sprintf("--cursor-file: keep the place: %v", e.cause)
}
func (e *cursorError) Unwrap() error { return e.cause }
