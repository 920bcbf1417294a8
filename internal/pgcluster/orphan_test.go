package pgcluster

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// orphanEnv makes this test binary the owner of a cluster, to be killed.
const orphanEnv = "WALHOOK_TEST_CLUSTER_IN"

func TestMain(m *testing.M) {
	if parent := os.Getenv(orphanEnv); parent != "" {
		ownCluster(parent)
	}
	os.Exit(m.Run())
}

func ownCluster(parent string) {
	c, err := Start(context.Background(), Options{NoSync: true, TempDir: parent})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(c.PID())
	select {}
}

func TestCluster_IsGoneWhenItsOwnerIsKilled(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"SIGKILL": syscall.SIGKILL, "Ctrl-C": syscall.SIGINT} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := openDir(t)
			owner := exec.Command(os.Args[0])
			owner.Env = append(os.Environ(), orphanEnv+"="+parent)
			owner.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			out, err := owner.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := owner.Start(); err != nil {
				t.Fatal(err)
			}
			var postmaster int
			line, _ := bufio.NewReader(out).ReadString('\n')
			if _, err := fmt.Sscan(line, &postmaster); err != nil {
				t.Fatalf("the owner says %q", line)
			}
			// The whole group, as the terminal does with Ctrl-C.
			if err := syscall.Kill(-owner.Process.Pid, signal); err != nil {
				t.Fatal(err)
			}
			_ = owner.Wait()
			eventually(t, "the postmaster ends", func() bool { return !alive(postmaster) })
			eventually(t, "the folder is removed", func() bool {
				left, _ := os.ReadDir(parent)
				return len(left) == 0
			})
		})
	}
}

func TestStart_SweepsStaleFoldersOnly(t *testing.T) {
	t.Parallel()
	parent := openDir(t)
	living := start(t, Options{NoSync: true, TempDir: parent})
	stale := filepath.Join(parent, homePrefix+"stale")
	foreign := filepath.Join(parent, "foreign")
	for _, dir := range []string{stale, foreign} {
		if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "owner"), []byte("1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	young := filepath.Join(parent, homePrefix+"young")
	if err := os.Mkdir(young, 0o700); err != nil {
		t.Fatal(err)
	}
	sweep(parent)
	for dir, kept := range map[string]bool{living.home.dir: true, stale: false, foreign: true, young: true} {
		if _, err := os.Stat(dir); (err == nil) != kept {
			t.Errorf("%s kept: %v, want %v", filepath.Base(dir), err == nil, kept)
		}
	}
	if one[int](t, living, "SELECT 1") != 1 {
		t.Error("the living cluster was hurt")
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}
