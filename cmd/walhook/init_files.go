package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// newFiles are files of one directory that do not exist yet.
type newFiles struct {
	dir   string
	files []newFile
}

type newFile struct {
	name string // below dir
	text []byte
	mode fs.FileMode
}

func (n *newFiles) add(name string, text []byte, mode fs.FileMode) {
	n.files = append(n.files, newFile{name, text, mode})
}

func (n *newFiles) names() []string {
	names := make([]string, len(n.files))
	for i, f := range n.files {
		names[i] = f.name
	}
	return names
}

// free refuses names of which one exists.
func (n *newFiles) free(names ...string) error {
	if info, err := os.Stat(n.dir); err == nil && !info.IsDir() {
		return usage(fmt.Errorf("--dir: %s exists and is no directory: name another one", n.dir))
	}
	var faults []error
	for _, name := range names {
		path := filepath.Join(n.dir, name)
		switch _, err := os.Lstat(path); {
		case err == nil:
			faults = append(faults, fmt.Errorf("%s exists, and init replaces no file: move it away, or name another directory with --dir", path))
		case !errors.Is(err, fs.ErrNotExist):
			faults = append(faults, fmt.Errorf("--dir: %w", err))
		}
	}
	return usage(errors.Join(faults...))
}

// write writes all files, or none: after an error it removes those that it wrote.
func (n *newFiles) write() (err error) {
	if err := n.free(n.names()...); err != nil {
		return err
	}
	var written []string
	defer func() {
		if err != nil {
			for _, path := range written {
				err = errors.Join(err, os.Remove(path))
			}
		}
	}()
	for _, f := range n.files {
		path := filepath.Join(n.dir, f.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return usage(fmt.Errorf("--dir: %w", err))
		}
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
		if errors.Is(err, fs.ErrExist) {
			return n.free(f.name)
		}
		if err != nil {
			return usage(fmt.Errorf("--dir: %w", err))
		}
		written = append(written, path)
		_, err = file.Write(f.text)
		if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return nil
}
