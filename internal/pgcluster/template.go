package pgcluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Template is what initdb makes, kept to be copied: a copy takes a fraction of
// the time. Each copy has a system identifier of its own, as what initdb makes
// has, so no two clusters are taken for the same.
type Template struct {
	binaries Binaries
	password string
	home     *home
}

// NewTemplate makes a template for clusters with the same server binaries.
func NewTemplate(ctx context.Context, o Options) (*Template, error) {
	binaries, home, err := prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	t := &Template{binaries: binaries, password: rand.Text(), home: home}
	if err := initdb(ctx, binaries, home, t.password, o); err != nil {
		return nil, errors.Join(err, t.Remove())
	}
	return t, nil
}

// Remove removes the template. Clusters that were copied from it stay.
func (t *Template) Remove() error { return t.home.remove() }

// copyTo fills the data folder of a cluster that has not started yet.
func (t *Template) copyTo(home *home) error {
	err := t.copyFiles(home)
	if err == nil {
		err = identify(home.data())
	}
	if err != nil {
		return fmt.Errorf("copy the template of a cluster: %w", err)
	}
	return nil
}

// copyFiles makes the data folder of another cluster a copy, system identifier included.
func (t *Template) copyFiles(home *home) error {
	from, to := t.home.data(), home.data()
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == from {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if entry.IsDir() {
			err = os.Mkdir(target, 0o700)
		} else {
			err = copyFile(path, target)
		}
		return errors.Join(err, home.account.own(target))
	})
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// identify gives a data folder a system identifier of its own. It stands at the
// beginning of the control file, whose checksum is its last field, and in the
// header of each WAL file (PostgreSQL's catalog/pg_control.h and
// access/xlog_internal.h).
func identify(data string) error {
	path := filepath.Join(data, "global", "pg_control")
	control, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	end, err := checksumAt(control)
	if err != nil {
		return err
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // which never fails
	copy(control, id)
	binary.NativeEndian.PutUint32(control[end:], crc32.Checksum(control[:end], crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(path, control, 0o600); err != nil {
		return err
	}
	segments, err := filepath.Glob(filepath.Join(data, "pg_wal", "????????????????????????"))
	if err != nil {
		return err
	}
	for _, segment := range segments {
		file, err := os.OpenFile(segment, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		const systemID = 24 // of the first page's header
		_, err = file.WriteAt(id, systemID)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
	return nil
}

// checksumAt finds the checksum of a control file, whose place depends on the
// version: it is that of all that comes before it.
func checksumAt(control []byte) (int, error) {
	const least, most = 64, 512 // the file is never written beyond a sector
	table := crc32.MakeTable(crc32.Castagnoli)
	for end := least; end+4 <= min(most, len(control)); end += 4 {
		if crc32.Checksum(control[:end], table) == binary.NativeEndian.Uint32(control[end:]) {
			return end, nil
		}
	}
	return 0, errors.New("pg_control has no checksum where one was looked for")
}
