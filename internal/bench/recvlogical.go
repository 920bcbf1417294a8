package bench

import (
	"context"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// recvlogical returns the path of pg_recvlogical; "" if it is not installed.
func (b *bench) recvlogical() string {
	for _, name := range []string{filepath.Join(b.cluster.Binaries().Dir, "pg_recvlogical"), "pg_recvlogical"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

const makeRecvSlot = `SELECT pg_create_logical_replication_slot($1, 'pgoutput')`

// receiveAll runs pg_recvlogical on a slot up to the end of the WAL, discards the output,
// and returns how long that took.
func (w *world) receiveAll(ctx context.Context, program, slot string) (time.Duration, error) {
	var end string
	if err := w.conn.QueryRow(ctx, `SELECT pg_current_wal_lsn()::text`).Scan(&end); err != nil {
		return 0, err
	}
	u, err := url.Parse(w.source)
	if err != nil {
		return 0, err
	}
	password, _ := u.User.Password()
	cmd := exec.CommandContext(ctx, program, "--start", "--slot", slot, "--endpos", end, "--file", "-", "--no-loop",
		"-o", "proto_version=1", "-o", "publication_names=walhook", "-o", "messages=true",
		"--host", u.Hostname(), "--port", u.Port(), "--username", u.User.Username(), "--dbname", strings.TrimPrefix(u.Path, "/"))
	cmd.Env = append(ownEnviron(), "PGPASSWORD="+password)
	var said strings.Builder
	cmd.Stderr = &said
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("pg_recvlogical: %w: %s", err, said.String())
	}
	took := time.Since(began)
	var done bool
	const reached = `SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $1`
	if err := w.conn.QueryRow(ctx, reached, slot, end).Scan(&done); err != nil {
		return 0, err
	}
	if !done {
		return 0, fmt.Errorf("pg_recvlogical ended before %s: %s", end, said.String())
	}
	return took, nil
}
