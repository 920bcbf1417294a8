package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"walhook/internal/carrier"
	"walhook/internal/pgtest"
)

// Whatever a server turns a running walhook down for is an outage: it waits,
// goes on by itself once it is let in again, and stops with status 0 meanwhile.
// What a file holds counts for the next connection.
func TestRun_ARefusalWhileRunningIsWaitedForOnEitherSide(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"source", "outbox"} {
		for _, c := range []struct {
			name           string
			roles          string
			refuse, permit string // SQL; %s is the role
			rotate         bool   // the file gets the new password, which permits
		}{
			{"password rotated in the file of the URL", "all", `ALTER ROLE %s PASSWORD 'two'`, "", true},
			{"login taken away", "publisher", `ALTER ROLE %s NOLOGIN`, `ALTER ROLE %s LOGIN`, false},
			{"no connections left for the role", "all", `ALTER ROLE %s NOSUPERUSER CONNECTION LIMIT 0`, `ALTER ROLE %s SUPERUSER CONNECTION LIMIT -1`, false},
			{"role dropped", "publisher", `ALTER ROLE %[1]s RENAME TO %[1]s_gone`, `ALTER ROLE %[1]s_gone RENAME TO %[1]s; ALTER ROLE %[1]s PASSWORD 'one'`, false},
		} {
			t.Run(side+", "+c.name, func(t *testing.T) {
				t.Parallel()
				var delivered atomic.Int64
				server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { delivered.Add(1) }))
				t.Cleanup(server.Close)
				source, outbox := pgtest.Database(t), pgtest.Database(t)
				role, slot, listen := "rotated_"+source.Name, "rotated_"+source.Name, freeAddress(t)
				source.Exec(t, carrier.Tables)
				source.Exec(t, `INSERT INTO users (id, username, web_hook_url) VALUES (7, 'n', '`+server.URL+`')`)
				source.Exec(t, `CREATE ROLE `+role+` LOGIN REPLICATION SUPERUSER PASSWORD 'one'`)
				mustRun(t, "setup", "--source", source.URL, "--outbox", outbox.URL, "--slot", slot)
				db := map[string]*pgtest.DB{"source": source, "outbox": outbox}[side]
				file := filepath.Join(t.TempDir(), "url")
				write := func(password string) {
					if err := os.WriteFile(file, []byte(withUser(t, db.URL, role, password)+"\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				write("one")
				args := []string{"run", "--slot", slot, "--listen", listen, "--allow-cidr", "127.0.0.0/8", "--role", c.roles, "--" + side + "-file", file}
				if side == "source" {
					args = append(args, "--outbox", outbox.URL)
				} else {
					args = append(args, "--source", source.URL)
				}
				p := startChild(t, args...)
				awaitReady(t, listen)
				ready := func() int {
					resp, err := http.Get("http://" + listen + "/readyz")
					if err != nil {
						return 0
					}
					defer resp.Body.Close()
					return resp.StatusCode
				}
				db.Exec(t, fmt.Sprintf(c.refuse, role))
				db.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE '`+role+`%'`)
				eventually(t, 20*time.Second, func() bool { return ready() == http.StatusServiceUnavailable })
				source.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (1, 7, '1')`)
				if c.rotate {
					write("two")
				} else {
					db.Exec(t, fmt.Sprintf(c.permit, role))
				}
				eventually(t, 40*time.Second, func() bool {
					return ready() == http.StatusOK && (c.roles != "all" || delivered.Load() == 1)
				})
				db.Exec(t, fmt.Sprintf(`ALTER ROLE %s NOLOGIN`, role))
				db.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '`+role+`'`)
				eventually(t, 20*time.Second, func() bool { return ready() == http.StatusServiceUnavailable })
				began := time.Now()
				p.stop(t)
				if took := time.Since(began); took > 15*time.Second {
					t.Errorf("it took %s to stop", took)
				}
			})
		}
	}
}

// A wrong password at the start is said, with the exit status of a fault; the
// URL is not shown.
func TestRun_AWrongPasswordAtTheStartIsSaid(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, carrier.Tables)
	role, slot := "start_"+db.Name, "wrong_"+db.Name
	db.Exec(t, `CREATE ROLE `+role+` LOGIN REPLICATION SUPERUSER PASSWORD 'one'`)
	mustRun(t, "setup", "--source", db.URL, "--slot", slot)
	wrong := strings.Replace(withUser(t, db.URL, role, "wrong"), "sslmode=disable", "", 1)
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"source", []string{"run", "--role", "publisher", "--source", wrong, "--outbox", db.URL}, []string{"the source refuses the role or its password (password authentication failed for user", "--source"}},
		{"outbox", []string{"run", "--source", db.URL, "--outbox", wrong}, []string{"the outbox's database refuses the role or its password (password authentication failed for user", "--outbox"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantFault(t, exitFault, c.want, append(c.args, "--slot", slot, "--listen", "off")...)
		})
	}
}
