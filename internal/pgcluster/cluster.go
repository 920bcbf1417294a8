package pgcluster

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/pgsession"
)

// superuser is the role of initdb and of the cluster's URLs.
const superuser = "postgres"

// portAttempts is how many free ports Start tries: another process may take a port between
// the check and the bind.
const portAttempts = 5

// Cluster is a throwaway PostgreSQL server. It is safe for concurrent use.
type Cluster struct {
	binaries Binaries
	options  Options
	password string
	port     int
	home     *home

	mu      sync.Mutex
	server  *process // nil while the server is down; guarded by mu
	stopped bool     // guarded by mu
}

// Start finds a server, makes a cluster and waits until it answers.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	binaries, home, err := prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	c := &Cluster{binaries: binaries, options: o, password: rand.Text(), home: home}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// prepare finds a server and makes an empty folder for its cluster.
func prepare(ctx context.Context, o Options) (Binaries, *home, error) {
	binaries, err := Find(ctx, o)
	if err != nil {
		return Binaries{}, nil, err
	}
	runAs, err := findAccount(o.User)
	if err != nil {
		return Binaries{}, nil, err
	}
	if err := runAs.reaches(filepath.Join(binaries.Dir, "postgres")); err != nil {
		return Binaries{}, nil, err
	}
	home, err := makeHome(o.TempDir, runAs)
	return binaries, home, err
}

func (c *Cluster) start(ctx context.Context) error {
	var err error
	if t := c.options.Template; t != nil && t.binaries.Dir == c.binaries.Dir {
		c.password = t.password
		err = t.copyTo(c.home)
	} else {
		err = initdb(ctx, c.binaries, c.home, c.password, c.options)
	}
	if err == nil {
		err = c.configure()
	}
	if err != nil {
		return err
	}
	return c.listen(ctx)
}

// listen starts the server on a free port.
func (c *Cluster) listen(ctx context.Context) (err error) {
	for range portAttempts {
		if c.port, err = freePort(); err != nil {
			return err
		}
		if err = c.up(ctx); err == nil || ctx.Err() != nil || !bytes.Contains(c.log(), []byte("could not bind")) {
			return err
		}
	}
	return err
}

// initdb makes the data folder: scram passwords only.
func initdb(ctx context.Context, binaries Binaries, home *home, password string, o Options) error {
	secret := filepath.Join(home.dir, "password")
	if err := home.write(secret, password); err != nil {
		return err
	}
	defer os.Remove(secret)
	args := []string{"-D", home.data(), "-U", superuser, "--pwfile=" + secret, "--auth=scram-sha-256",
		"--encoding=UTF8", "--no-locale"}
	if o.NoSync {
		args = append(args, "--no-sync")
	}
	init, err := startProcess(filepath.Join(binaries.Dir, "initdb"), args, home)
	if err != nil {
		return fmt.Errorf("start initdb: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.startTimeout(), errors.New("initdb takes too long"))
	defer cancel()
	select {
	case <-ctx.Done():
		init.killTree()
		return fmt.Errorf("create a cluster: %w", context.Cause(ctx))
	case <-init.done:
	}
	if init.err != nil {
		return fmt.Errorf("create a cluster with initdb: %w: %s", init.err, tail(home.log(), logTail))
	}
	return nil
}

// configure writes the settings into postgresql.conf, so that ALTER SYSTEM can
// still override them.
func (c *Cluster) configure() error {
	var conf strings.Builder
	settings := c.options.settings()
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&conf, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	path := filepath.Join(c.home.data(), "postgresql.conf")
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	_, err = file.WriteString(conf.String())
	return errors.Join(err, file.Close())
}

// up starts the postmaster and waits until it takes connections, crash
// recovery included.
func (c *Cluster) up(ctx context.Context) error {
	socket := c.home.data()
	if len(socket) > 80 { // sun_path holds 104 bytes on some systems, the file's name included
		socket = ""
	}
	c.home.forgetLog()
	server, err := startProcess(filepath.Join(c.binaries.Dir, "postgres"),
		[]string{"-D", c.home.data(), "-p", strconv.Itoa(c.port), "-k", socket}, c.home)
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.options.startTimeout(), errors.New("postgres takes too long to start"))
	defer cancel()
	if err := c.answers(ctx, server); err != nil {
		server.killTree()
		return fmt.Errorf("start postgres: %w: %s", err, c.Logs())
	}
	c.server = server
	return nil
}

func (c *Cluster) answers(ctx context.Context, server *process) error {
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for {
		conn, err := pgsession.Connect(ctx, c.URL("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-server.done:
			return cmp.Or(server.err, errors.New("it ended immediately"))
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-pause.C:
		}
	}
}

// URL returns the URL of a database of the cluster, as superuser.
func (c *Cluster) URL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, c.password),
		Host:     "127.0.0.1:" + strconv.Itoa(c.port),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Binaries returns the folder and version of the server.
func (c *Cluster) Binaries() Binaries { return c.binaries }

// Port returns the TCP port on 127.0.0.1, which Restart keeps.
func (c *Cluster) Port() int { return c.port }

// PID returns the postmaster's process id; 0 while the server is down.
func (c *Cluster) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return 0
	}
	return c.server.pid()
}

// CreateDatabase makes an empty database and returns its URL.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) (string, error) {
	conn, err := pgsession.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	create := "CREATE DATABASE " + pgx.Identifier{name}.Sanitize()
	if c.options.NoSync && c.binaries.Major >= 15 {
		create += " STRATEGY file_copy" // quicker than through the WAL where nothing is synced
	}
	if _, err := conn.Exec(ctx, create); err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	return c.URL(name), nil
}

// Kill is a crash: SIGKILL to the postmaster and all its children. It returns
// when they are gone. The data stays for Restart.
func (c *Cluster) Kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return errors.New("kill postgres: it is not running")
	}
	c.server.killTree()
	c.server = nil
	return c.home.forgetPostmaster()
}

// Restart starts the server again on the same data and port: after a Kill with
// crash recovery, otherwise after a fast shutdown.
func (c *Cluster) Restart(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return errors.New("restart postgres: the cluster was stopped and removed")
	}
	c.down(cleanShutdown)
	var err error
	for range portAttempts { // another process may use the port for a moment
		if err = c.up(ctx); err == nil || ctx.Err() != nil || !bytes.Contains(c.log(), []byte("could not bind")) {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
	return err
}

// Shutdown ends the server as an operator's fast shutdown does and keeps the
// data for Restart. It disconnects clients that are still connected after a minute.
func (c *Cluster) Shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down(cleanShutdown)
}

func (c *Cluster) down(fast time.Duration) {
	if c.server != nil {
		c.server.shutdown(fast)
		c.server = nil
	}
}

// Stop ends the server and removes all its files. Stopping twice is allowed.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return nil
	}
	c.stopped = true
	c.down(fastShutdown)
	return c.home.remove()
}

// Logs returns the end of the server's log, for error messages.
func (c *Cluster) Logs() string { return tail(c.log(), logTail) }

// logTail is how much of a log an error message shows, in bytes.
const logTail = 2000

func (c *Cluster) log() []byte { return c.home.log() }

// tail returns the end of an output, for an error message.
func tail(out []byte, limit int) string {
	out = bytes.TrimSpace(out)
	if len(out) > limit {
		out = append([]byte("…"), out[len(out)-limit:]...)
	}
	return string(out)
}
