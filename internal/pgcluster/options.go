package pgcluster

import (
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// MinMajor is the oldest PostgreSQL that walhook supports: pgoutput sends logical messages
// from 14 on.
const MinMajor = 14

// fetchMajor is the version to download when any version will do.
const fetchMajor = 17

// Options says which server to run and how. The zero value is any PostgreSQL
// from [MinMajor] on, fetched if need be, with fsync on.
type Options struct {
	BinDir   string // folder of initdb and postgres; "" searches
	Major    int    // the major version wanted; 0 takes any from MinMajor on
	NoFetch  bool   // fail rather than download
	CacheDir string // where fetched binaries stay; "" is the user's cache folder

	TempDir  string // parent of the cluster's folder; "" is the system's
	User     string // user to run as when started as root; "" is postgres, else nobody
	NoSync   bool   // fsync off: quick, still safe against Kill, not against a power cut
	Settings map[string]string

	// Template is copied in place of running initdb, where it is of the same server
	// binaries; nil runs initdb.
	Template *Template

	// StartTimeout bounds initdb, start-up and crash recovery, each; 0 is a minute.
	StartTimeout time.Duration
	// Progress is called with a text before a long step, such as a download; it may be nil.
	Progress func(message string)
}

func (o Options) progress(message string) {
	if o.Progress != nil {
		o.Progress(message)
	}
}

func (o Options) startTimeout() time.Duration {
	return cmp.Or(o.StartTimeout, time.Minute)
}

func (o Options) accepts(major int) bool {
	return major >= MinMajor && (o.Major == 0 || o.Major == major)
}

func (o Options) wanted() string {
	if o.Major == 0 {
		return "PostgreSQL " + strconv.Itoa(MinMajor) + " or newer"
	}
	return "PostgreSQL " + strconv.Itoa(o.Major)
}

// cacheDir is outside root's home when root runs this process, because the server's user
// must be able to read it.
func (o Options) cacheDir() string {
	if o.CacheDir != "" {
		return o.CacheDir
	}
	if os.Getuid() == 0 {
		return "/var/cache/walhook"
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "walhook")
	}
	return filepath.Join(os.TempDir(), "walhook-cache-"+strconv.Itoa(os.Getuid()))
}

// settings returns the server's settings: for logical replication, for many tests on one
// server, and those of the caller.
func (o Options) settings() map[string]string {
	set := map[string]string{
		"wal_level":                 "logical",
		"max_wal_senders":           "20",
		"max_replication_slots":     "20",
		"max_connections":           "200",
		"track_commit_timestamp":    "on",
		"timezone":                  "UTC",
		"log_timezone":              "UTC",
		"listen_addresses":          "127.0.0.1",
		"autovacuum_naptime":        "10s",
		"unix_socket_permissions":   "0700",
		"logging_collector":         "off",
		"max_prepared_transactions": "10",
	}
	if o.NoSync {
		set["fsync"] = "off"
	}
	maps.Copy(set, o.Settings)
	return set
}
