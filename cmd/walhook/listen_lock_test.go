//go:build unix

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// Every path to a file has one lock, also before the file is there.
func TestCursorFile_HasOneLockByEveryPath(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"direct": filepath.Join(dir, "a", "place"), "b/relative": "../a/place", "twice": "b/relative", "c": "a"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(filepath.Join(dir, "b"))
	for _, there := range []bool{false, true} {
		if there {
			if err := os.WriteFile("../a/place", []byte("c1\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		first := cursorFile{path: filepath.Join(dir, "a", "place")}
		if err := first.own(lockNow, io.Discard); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{filepath.Join(dir, "a", "place"), "../a/place", "./../b/../a/place", "relative", "../direct", "../twice", "../c/place"} {
			second := cursorFile{path: path}
			err := second.own(lockNow, io.Discard)
			if _, held := errors.AsType[*cursorHeldError](err); !held || exitStatus(t.Context(), err) != exitFault {
				t.Errorf("%s, file there %t: %v", path, there, err)
				continue
			}
			host, _ := os.Hostname()
			for _, part := range []string{"--cursor-file: another listen uses ", "/place: ", fmt.Sprintf("process %d on %s; ", os.Getpid(), host), "end that one, or give this one a file of its own"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("no %q in %v", part, err)
				}
			}
		}
		other := cursorFile{path: "../a/place2"}
		if err := errors.Join(other.own(lockNow, io.Discard), other.release()); err != nil {
			t.Errorf("another file: %v", err)
		}
		if err := first.release(); err != nil {
			t.Fatal(err)
		}
	}
	// A link to a file that is not there yet stays one, too.
	if err := os.Remove("../a/place"); err != nil {
		t.Fatal(err)
	}
	c := cursorFile{path: "../twice"}
	if _, err := c.read(); err != nil {
		t.Fatal(err)
	}
	if err := c.keep("c1"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile("../a/place"); string(text) != "c1\n" || err != nil {
		t.Errorf("the links' file has %q, %v", text, err)
	}
}

// Many at once: never two have the lock, and it is taken again after its release.
func TestCursorFile_OneOfManyHasTheLock(t *testing.T) {
	place := filepath.Join(t.TempDir(), "place")
	var have, most, took atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				c := cursorFile{path: place}
				err := c.own(lockNow, io.Discard)
				if _, held := errors.AsType[*cursorHeldError](err); held {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				took.Add(1)
				if now := have.Add(1); now > most.Load() {
					most.Store(now)
				}
				for range 20 {
					runtime.Gosched() // the others try meanwhile
				}
				have.Add(-1)
				if err := c.release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if most.Load() != 1 || took.Load() < 2 {
		t.Errorf("%d had the lock at a time, %d had it in all", most.Load(), took.Load())
	}
}

// Somebody who deletes the lock's file between its opening and its lock does not let two
// processes run.
func TestCursorLock_IsOfTheFileThatHasTheName(t *testing.T) {
	place := filepath.Join(t.TempDir(), "place")
	name := filepath.Join(filepath.Dir(place), ".place.lock")
	var second cursorLock
	meanwhile := func(file *os.File) error {
		if second.file == nil {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			if err := second.take(place, lockNow); err != nil {
				t.Fatal(err)
			}
		}
		return lockNow(file)
	}
	var first cursorLock
	if _, held := errors.AsType[*cursorHeldError](first.take(place, meanwhile)); !held || first.file != nil {
		t.Error("both have a lock")
	}
	if err := second.release(); err != nil {
		t.Fatal(err)
	}
	always := func(file *os.File) error { return errors.Join(os.Remove(name), lockNow(file)) }
	if _, none := errors.AsType[*noLocksError](first.take(place, always)); !none {
		t.Error("no end where the file is another one each time")
	}
}

func TestCursorLock_WritesNoFileOfOthers(t *testing.T) {
	dir := t.TempDir()
	place, name, others := filepath.Join(dir, "place"), filepath.Join(dir, ".place.lock"), filepath.Join(dir, "others")
	if err := os.WriteFile(others, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, plant := range map[string]func() error{
		"a link":      func() error { return os.Symlink(others, name) },
		"a pipe":      func() error { return syscall.Mkfifo(name, 0o600) },
		"a directory": func() error { return os.Mkdir(name, 0o700) },
	} {
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		c := cursorFile{path: place}
		err := c.own(lockNow, io.Discard)
		if err == nil || !strings.Contains(err.Error(), name+" is no regular file; delete it") || exitStatus(t.Context(), err) != exitUsage {
			t.Errorf("%s: %v", what, err)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(others); string(text) != "theirs" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	// What stands in the lock's file need not be a process.
	var first, second cursorLock
	if err := first.take(place, lockNow); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "\x1b[2J 7\n", "7", "-7 host\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := second.take(place, lockNow); err == nil || !strings.HasSuffix(err.Error(), "uses "+place+"; end that one, or give this one a file of its own") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := first.release(); err != nil {
		t.Fatal(err)
	}
}

// A lock that cannot be had is a warning where there are no locks at all, and an error
// where the file cannot be written.
func TestCursorFile_WithoutALock(t *testing.T) {
	for err, want := range map[error]string{
		syscall.ENOLCK:      "no locks",
		syscall.ENOTSUP:     "no locks",
		syscall.ENOSYS:      "no locks",
		syscall.EWOULDBLOCK: "another process has the lock",
		syscall.EIO:         "flock: input/output error",
	} {
		place := filepath.Join(t.TempDir(), "place")
		var warned strings.Builder
		c := cursorFile{path: place}
		got := c.own(func(*os.File) error { return lockError(err) }, &warned)
		_, held := errors.AsType[*cursorHeldError](got)
		switch {
		case want == "no locks":
			if got != nil || !strings.Contains(warned.String(), place+" cannot be locked ("+err.Error()+"): make sure that no other listen uses it\n") {
				t.Errorf("%v: %v, warned of %q", err, got, warned.String())
			}
			if got := errors.Join(c.keep("c1"), c.release()); got != nil {
				t.Errorf("%v: %v", err, got)
			}
		case err == syscall.EWOULDBLOCK:
			if !held || warned.Len() > 0 {
				t.Errorf("%v: %v, warned of %q", err, got, warned.String())
			}
		case got == nil || !strings.Contains(got.Error(), want) || held || exitStatus(t.Context(), got) != exitUsage || warned.Len() > 0:
			t.Errorf("%v: %v, warned of %q", err, got, warned.String())
		}
	}
	c := cursorFile{path: filepath.Join(t.TempDir(), "no directory", "place")}
	if err := c.own(lockNow, io.Discard); err == nil || !strings.Contains(err.Error(), "--cursor-file: keep the place: ") || !strings.Contains(err.Error(), "listen has to write it, and others in its directory") {
		t.Error(err)
	}
	c = cursorFile{path: t.TempDir()}
	if err := c.own(lockNow, io.Discard); err == nil || !strings.Contains(err.Error(), "is no regular file") {
		t.Error(err)
	}
}
