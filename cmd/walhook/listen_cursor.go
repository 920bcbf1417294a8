package main

import (
	"errors"
	"fmt"
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
}

// maxCursorFile is more than a cursor has.
const maxCursorFile = 1024

// read returns the cursor that is kept; "" where the file does not exist yet. It is an error
// where none can be kept.
func (c *cursorFile) read() (string, error) {
	if c.path == "" {
		return "", nil
	}
	if to, err := filepath.EvalSymlinks(c.path); err == nil {
		c.path = to // a link stays one
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

// create makes a file beside the one that it is to replace.
func (c *cursorFile) create() (*os.File, error) {
	file, err := os.CreateTemp(filepath.Dir(c.path), "."+filepath.Base(c.path)+".*")
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

// notTaken is an event that --forward has not taken, where nothing may pass it.
type notTaken struct {
	event  string
	answer *forwarded
}

func (e *notTaken) Error() string {
	if e.answer.Error != "" {
		return fmt.Sprintf("--forward did not take %s: %s", e.event, e.answer.Error)
	}
	return fmt.Sprintf("--forward did not take %s: it answered %d", e.event, e.answer.Status)
}

// taken says that the receiver has the event: any 2xx, as of a delivery.
func (f *forwarded) taken() bool { return f.Error == "" && f.Status/100 == 2 }
