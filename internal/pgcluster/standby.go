package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"walhook/internal/pgsession"
)

// Standby makes a server that follows c by streaming replication. c knows it by a name
// of letters and digits, for synchronous_standby_names. The copy is made while c is shut down, so it takes
// neither pg_basebackup, which not every package of server binaries has, nor WAL.
func (c *Cluster) Standby(ctx context.Context, name string) (*Cluster, error) {
	home, err := makeHome(c.options.TempDir, c.home.account)
	if err != nil {
		return nil, err
	}
	s := &Cluster{binaries: c.binaries, options: c.options, password: c.password, home: home}
	err = c.copyTo(ctx, s)
	if err == nil {
		err = s.follow(ctx, c, name)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make standby %s: %w", name, err), s.Stop())
	}
	return s, nil
}

// copyTo shuts c down, copies its data and starts it again.
func (c *Cluster) copyTo(ctx context.Context, s *Cluster) error {
	c.Shutdown()
	t := Template{binaries: c.binaries, home: c.home}
	err := t.copyFiles(s.home)
	return errors.Join(err, c.Restart(ctx))
}

// follow starts s as a standby of c.
func (s *Cluster) follow(ctx context.Context, c *Cluster, name string) (err error) {
	info := fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s application_name=%s", c.port, superuser, c.password, name)
	conf, err := os.OpenFile(filepath.Join(s.home.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conf, "primary_conninfo = '%s'\n", info)
	if err = errors.Join(err, conf.Close()); err != nil {
		return err
	}
	signal := filepath.Join(s.home.data(), "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		return err
	}
	if err := s.home.account.own(signal); err != nil {
		return err
	}
	return s.listen(ctx)
}

// promoteWithin bounds a promotion.
const promoteWithin = 30 * time.Second

// Promote makes a standby a primary, and returns when it takes writes.
func (c *Cluster) Promote(ctx context.Context) error {
	conn, err := pgsession.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var promoted bool
	if err := conn.QueryRow(ctx, "SELECT pg_promote(true, $1)", int(promoteWithin.Seconds())).Scan(&promoted); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	if !promoted {
		return fmt.Errorf("promote: the standby takes no writes after %s", promoteWithin)
	}
	return nil
}
