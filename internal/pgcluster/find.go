package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrNotFound means that there is no suitable server on the machine and none could be
// fetched. The error that wraps it lists the attempts.
var ErrNotFound = errors.New("no PostgreSQL server found")

// Binaries is a folder with initdb and postgres of one version.
type Binaries struct {
	Dir     string
	Version string // as `postgres --version` prints it, such as 15.18
	Major   int
}

// Find looks for a server in the folder of the options. Without one it uses pg_config and
// PATH, the usual folders of distributions, and the cache, and finally downloads one.
func Find(ctx context.Context, o Options) (Binaries, error) {
	var tried []string
	for _, dir := range candidates(ctx, o) {
		found, err := inspect(ctx, dir)
		switch {
		case err != nil:
			tried = append(tried, fmt.Sprintf("%s: %v", dir, err))
		case !o.accepts(found.Major):
			tried = append(tried, fmt.Sprintf("%s: is PostgreSQL %s", dir, found.Version))
		default:
			return found, nil
		}
		if ctx.Err() != nil {
			return Binaries{}, context.Cause(ctx)
		}
	}
	if o.BinDir == "" && !o.NoFetch {
		dir, err := fetch(ctx, o)
		if err == nil {
			return inspect(ctx, dir)
		}
		tried = append(tried, err.Error())
	}
	if len(tried) == 0 {
		tried = []string{"pg_config, PATH and the usual directories have none"}
	}
	return Binaries{}, fmt.Errorf("%w: %s wanted; %s; install the PostgreSQL server package of your system, or name the directory of its postgres and initdb binaries",
		ErrNotFound, o.wanted(), strings.Join(tried, "; "))
}

// candidates lists the folders to search, best first, each once.
func candidates(ctx context.Context, o Options) []string {
	if o.BinDir != "" {
		return []string{o.BinDir}
	}
	var dirs []string
	add := func(dir string) {
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err != nil {
			return
		}
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		add(strings.TrimSpace(string(out)))
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			add(filepath.Dir(real)) // initdb lies beside the real one
		}
	}
	for _, dir := range slices.Concat(distributionDirs(), fetchedDirs(o)) {
		add(dir)
	}
	return dirs
}

// distributionDirs are where packages put servers, newest first per pattern.
func distributionDirs() []string {
	patterns := []string{
		"/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
		"/usr/pgsql-*/bin",                                   // PGDG on RHEL, SUSE
		"/usr/lib/postgresql*/bin",                           // SUSE, Alpine
		"/usr/libexec/postgresql*",                           // Alpine
		"/opt/homebrew/opt/postgresql@*/bin",                 // Homebrew, Apple silicon
		"/usr/local/opt/postgresql@*/bin",                    // Homebrew, Intel
		"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",    // Homebrew, Linux
		"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
		"/Library/PostgreSQL/*/bin",                          // EDB on macOS
		"/opt/local/lib/postgresql*/bin",                     // MacPorts
		"/opt/postgresql/*/bin", "/usr/local/pgsql*/bin", "/usr/bin", "/usr/local/bin",
	}
	var dirs []string
	for _, pattern := range patterns {
		found, _ := filepath.Glob(pattern) // fails only for a malformed pattern
		slices.SortFunc(found, func(a, b string) int { return majorInPath(b) - majorInPath(a) })
		dirs = append(dirs, found...)
	}
	return dirs
}

// majorInPath returns the first number in a path, for sorting by version.
func majorInPath(path string) int {
	start := strings.IndexAny(path, "0123456789")
	if start < 0 {
		return 0
	}
	digits := path[start:]
	if end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		digits = digits[:end]
	}
	n, _ := strconv.Atoi(digits)
	return n
}

// inspect runs postgres in the folder to get its version, and checks for initdb.
func inspect(ctx context.Context, dir string) (Binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Binaries{}, err
	}
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return Binaries{}, fmt.Errorf("no %s there", name)
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("run postgres --version: %w", err)
	}
	version, major, err := parseVersion(string(out))
	if err != nil {
		return Binaries{}, err
	}
	return Binaries{Dir: dir, Version: version, Major: major}, nil
}

// parseVersion reads "postgres (PostgreSQL) 15.18 (Debian …)" and "18beta1".
func parseVersion(out string) (version string, major int, err error) {
	_, rest, ok := strings.Cut(out, "(PostgreSQL) ")
	if !ok || strings.TrimSpace(rest) == "" {
		return "", 0, fmt.Errorf("unknown version %q", strings.TrimSpace(out))
	}
	version = strings.Fields(rest)[0]
	if major = majorInPath(version); major == 0 {
		return "", 0, fmt.Errorf("unknown version %q", version)
	}
	return version, major, nil
}
