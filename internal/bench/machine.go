package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Machine describes the machine of the figures, which PostgreSQL, walhook and the
// receivers share.
type Machine struct {
	OS       string            `json:"os"`
	Arch     string            `json:"arch"`
	Kernel   string            `json:"kernel"`
	CPU      string            `json:"cpu,omitempty"` // the model, if the system provides it
	CPUs     int               `json:"cpus"`          // usable by Go
	Memory   int64             `json:"memory_bytes,omitzero"`
	Go       string            `json:"go"`
	Postgres string            `json:"postgres"`
	Settings map[string]string `json:"postgres_settings"`
}

// settingsShown are the server's settings that the figures depend on most.
const settingsShown = `SELECT name, current_setting(name) FROM unnest(ARRAY['fsync', 'synchronous_commit', 'full_page_writes',
	'wal_level', 'shared_buffers', 'max_wal_size', 'wal_buffers', 'wal_sync_method', 'track_commit_timestamp']) name`

func describeMachine(ctx context.Context, conn *pgx.Conn, postgres string) (Machine, error) {
	m := Machine{
		OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.GOMAXPROCS(0), Go: runtime.Version(),
		Postgres: postgres, Settings: map[string]string{},
	}
	if out, err := exec.CommandContext(ctx, "uname", "-r").Output(); err == nil {
		m.Kernel = strings.TrimSpace(string(out))
	}
	m.CPU = procValue("/proc/cpuinfo", "model name")
	if text := procValue("/proc/meminfo", "MemTotal"); text != "" {
		_, _ = fmt.Sscan(text, &m.Memory)
		m.Memory <<= 10 // the unit is KiB
	}
	rows, err := conn.Query(ctx, settingsShown)
	if err != nil {
		return m, err
	}
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		m.Settings[name] = value
		return nil
	})
	return m, err
}

// procValue returns the first value of a key in one of Linux's lists; "" elsewhere.
func procValue(file, key string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
