package cdc

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"walhook/internal/pgcluster"
	"walhook/internal/pgtest"
)

// ownServer is a world on a server whose data can be copied and put back.
type ownServer struct {
	*world
	cluster *pgcluster.Cluster
	data    string
}

func newOwnServer(t *testing.T) *ownServer {
	t.Helper()
	cluster := pgtest.NewCluster(t, pgcluster.Options{NoSync: true, Settings: map[string]string{"restore_command": "false"}})
	s := &ownServer{world: newWorldIn(t, pgtest.NewDatabase(t, cluster), ""), cluster: cluster}
	s.data = one[string](t, s.world, "SHOW data_directory")
	return s
}

// backup copies the data of the server, which is shut down for it.
func (s *ownServer) backup(t *testing.T) (restore func()) {
	t.Helper()
	s.cluster.Shutdown()
	saved := filepath.Join(t.TempDir(), "data")
	copyFolder(t, s.data, saved)
	s.up(t)
	return func() {
		t.Helper()
		s.cluster.Shutdown()
		if err := os.RemoveAll(s.data); err != nil {
			t.Fatal(err)
		}
		copyFolder(t, saved, s.data)
	}
}

func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", from, err, out)
	}
}

// promote ends the server's timeline, as recovery from an archive and the
// promotion of a standby do. The server is down.
func (s *ownServer) promote(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.data, "recovery.signal"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	s.up(t)
	eventually(t, "the end of recovery", patience, func() bool { return !one[bool](t, s.world, "SELECT pg_is_in_recovery()") })
}

func (s *ownServer) up(t *testing.T) {
	t.Helper()
	if err := s.cluster.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.conn, s.watch = s.Connect(t), s.Connect(t)
}

func TestReader_FollowsTheSourceThroughCleanFailovers(t *testing.T) {
	t.Parallel()
	s := newOwnServer(t)
	r := s.start(t)
	for timeline := int32(2); timeline <= 4; timeline++ {
		s.exec(t, "INSERT INTO items SELECT count(*) + 1, 7, 'x' FROM items")
		s.settle(t)
		s.cluster.Shutdown()
		s.promote(t)
		s.settle(t)
		if now := look(s.store, func() int32 { return s.store.checkpoint.Source.Timeline }); now != timeline {
			t.Errorf("following timeline %d, want %d", now, timeline)
		}
	}
	s.wantIDs(t, 3)
	if err := r.stop(); err != nil || len(s.store.gaps) > 0 {
		t.Errorf("a clean failover was taken for a gap: %v, %v", err, s.store.gaps)
	}
}

func TestReader_ARestoredSourceIsAGap(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		after func(*testing.T, *ownServer) // the restored data is in place and the server down
		want  string
	}{
		{
			name:  "its WAL ends earlier",
			after: func(t *testing.T, s *ownServer) { s.up(t) },
			want:  "rewound or restored",
		},
		{
			name: "its WAL ends later, on another timeline",
			after: func(t *testing.T, s *ownServer) {
				s.promote(t)
				s.writeBeyond(t)
			},
			want: "which left timeline 1 at",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newOwnServer(t)
			restore := s.backup(t)
			r := s.start(t)
			s.exec(t, "INSERT INTO items SELECT n, 7, 'lost' FROM generate_series(1, 1000) n")
			s.settle(t)
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			stored := s.store.flush()
			restore()
			test.after(t, s)
			s.log = quiet
			s.wantGap(t, s.start(t).ends(t), stored, test.want)
		})
	}
}

// writeBeyond makes the server's WAL longer than what is stored.
func (s *ownServer) writeBeyond(t *testing.T) {
	t.Helper()
	for s.walEnd(t) <= s.store.flush() {
		s.exec(t, "INSERT INTO items SELECT n, 7, 'other' FROM generate_series(1, 1000) n", "TRUNCATE items")
	}
}

// A copy of older data that was started without recovery stays on its
// timeline, and by now has as much WAL as the server had. Only what stands
// where the stored position lies gives it away, as long as the slot is behind.
func TestReader_AnotherLogOnTheSameTimelineIsAGap(t *testing.T) {
	t.Parallel()
	s := newOwnServer(t)
	restore := s.backup(t)
	r := s.start(t)
	s.exec(t, "INSERT INTO items SELECT n, 7, 'lost' FROM generate_series(1, 1000) n")
	s.settle(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	stored := s.store.flush()
	restore()
	s.up(t)
	s.writeBeyond(t)
	s.exec(t, "INSERT INTO items VALUES (1, 7, 'other')")
	s.log = quiet
	s.wantGap(t, s.start(t).ends(t), stored, "not the one that was read")
}
