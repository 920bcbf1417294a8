package pgcluster

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is the user as which the server runs instead of root. A nil account stands for
// the present user.
type account struct {
	name     string
	uid, gid uint32
}

// findAccount returns nil unless this process runs as root.
func findAccount(name string) (*account, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	names := []string{"postgres", "nobody"}
	if name != "" {
		names = []string{name}
	}
	for _, name := range names {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(found.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(found.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 {
			return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
		}
	}
	return nil, fmt.Errorf("PostgreSQL refuses to run as root and there is no user %s to run it as; start walhook as an ordinary user",
		strings.Join(names, " or "))
}

func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// own makes the account the owner of a file.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// reaches checks whether the account can open a file.
func (a *account) reaches(path string) error {
	if a == nil {
		return nil
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	return a.enters(filepath.Dir(path))
}

// enters checks whether the account can enter a folder, by the permissions that it and the
// folders above it grant to all users.
func (a *account) enters(dir string) error {
	if a == nil {
		return nil
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 && !a.owns(info) {
			return fmt.Errorf("user %s, who runs PostgreSQL instead of root, cannot enter %s; start walhook as an ordinary user, or use a directory open to all", a.name, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func (a *account) owns(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == a.uid
}

// explain adds advice when the system does not allow a change of user.
func (a *account) explain(err error) error {
	if a != nil && errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("run as user %s instead of root: %w; start walhook as an ordinary user", a.name, err)
	}
	return err
}
