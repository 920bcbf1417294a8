package pgcluster

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestFind_ReadsEveryVersionText(t *testing.T) {
	for out, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": 15,
		"postgres (PostgreSQL) 18beta1\n":                        18,
		"postgres (PostgreSQL) 17.0\n":                           17,
		"postgres (PostgreSQL) 9.6.24\n":                         9,
		"postgres (PostgreSQL) devel\n":                          0,
		"something else":                                         0,
		"postgres (PostgreSQL) ":                                 0,
		"":                                                       0,
	} {
		if _, major, err := parseVersion(out); major != want || (err == nil) != (want > 0) {
			t.Errorf("parseVersion(%q) = %d, %v, want %d", out, major, err, want)
		}
	}
}

func TestFind_NamesWhatItTried(t *testing.T) {
	_, err := Find(t.Context(), Options{BinDir: t.TempDir()})
	if !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
}

func TestFind_SkipsVersionsThatAreTooOld(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"initdb", "postgres"} {
		script := "#!/bin/sh\necho 'postgres (PostgreSQL) 13.21'\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Find(t.Context(), Options{BinDir: dir}); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
}

func TestFetch_RestoresTheLinksOfAPackage(t *testing.T) {
	pkg := t.TempDir()
	if err := os.MkdirAll(filepath.Join(pkg, "native", "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(pkg, "native", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("lib/libpq.so.5.17", "library")
	write("pg-symlinks.json", `[{"source":"native/lib/libpq.so.5.17","target":"native/lib/libpq.so.5"}]`)
	for range 2 { // again is no fault
		if err := restoreLinks(pkg); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(filepath.Join(pkg, "native", "lib", "libpq.so.5")); string(text) != "library" {
		t.Fatal(err)
	}
	write("pg-symlinks.json", `[{"source":"x","target":"../outside"}]`)
	if err := restoreLinks(pkg); err == nil {
		t.Error("made a link outside the package")
	}
}

// TestFetch_BringsAServer downloads 20 MB, so it runs on request only.
func TestFetch_BringsAServer(t *testing.T) {
	if os.Getenv("WALHOOK_TEST_FETCH") == "" {
		t.Skip("set WALHOOK_TEST_FETCH=1 to download a server")
	}
	o := Options{NoSync: true, CacheDir: openDir(t), Progress: func(message string) { t.Log(message) }}
	dir, err := fetch(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	o.BinDir = dir
	if one[string](t, start(t, o), "SHOW wal_level") != "logical" {
		t.Error("the fetched server is not ready for logical replication")
	}
	if again, err := fetch(t.Context(), o); err != nil || again != dir {
		t.Errorf("fetched twice: %s, %v", again, err)
	}
}
