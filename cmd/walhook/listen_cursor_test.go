package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCursorFile_FollowsALink(t *testing.T) {
	dir := t.TempDir()
	place, link := filepath.Join(dir, "place"), filepath.Join(dir, "link")
	if err := os.WriteFile(place, []byte("c1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(place, link); err != nil {
		t.Fatal(err)
	}
	c := cursorFile{path: link}
	if kept, err := c.read(); kept != "c1" || err != nil {
		t.Fatal(kept, err)
	}
	if err := c.keep("c2"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(place); string(text) != "c2\n" || err != nil {
		t.Errorf("the link's file has %q, %v", text, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info.Mode(), err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 || err != nil {
		t.Errorf("%q are left, %v", left, err)
	}
}

// Two processes with one file would take each other's place for their own.
func TestCursorFile_IsOfOneProcess(t *testing.T) {
	place := filepath.Join(t.TempDir(), "place")
	one, other := cursorFile{path: place}, cursorFile{path: place}
	for _, c := range []*cursorFile{&one, &other} {
		if _, err := c.read(); err != nil {
			t.Fatal(err)
		}
	}
	if err := one.keep("c1"); err != nil {
		t.Fatal(err)
	}
	if err := other.keep("c0"); err == nil || !strings.Contains(err.Error(), "give each listen a file of its own") {
		t.Errorf("the second process: %v", err)
	}
	if err := one.keep("c2"); err != nil {
		t.Error(err)
	}
	if err := os.Remove(place); err != nil {
		t.Fatal(err)
	}
	if err := one.keep("c3"); err != nil {
		t.Errorf("after somebody deleted the file: %v", err)
	}
}

// Before anything is handed on.
func TestCursorFile_SaysAtOnceThatNothingCanBeWritten(t *testing.T) {
	c := cursorFile{path: filepath.Join(t.TempDir(), "no directory", "place")}
	if _, err := c.read(); err == nil || !strings.Contains(err.Error(), "--cursor-file: keep the place: ") {
		t.Error(err)
	}
}

// What a killed process left beside the file is used by the next one. A link that somebody
// put there is not followed.
func TestCursorFile_TakesOverWhatAKilledProcessLeft(t *testing.T) {
	dir := t.TempDir()
	place, left, others := filepath.Join(dir, "place"), filepath.Join(dir, ".place.new"), filepath.Join(dir, "others")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(left, "half a curs")
	c := cursorFile{path: place}
	if err := c.keep("cursor"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(place); err != nil || string(text) != "cursor\n" {
		t.Errorf("the file has %q, %v", text, err)
	}
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	write(others, "another's")
	if err := os.Symlink(others, left); err != nil {
		t.Fatal(err)
	}
	if err := c.keep("later"); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a link there: %v", err)
	}
	if text, err := os.ReadFile(others); err != nil || string(text) != "another's" {
		t.Errorf("the file that it leads to has %q, %v", text, err)
	}
}
