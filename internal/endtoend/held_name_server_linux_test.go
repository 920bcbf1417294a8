package endtoend

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer is the only name server of a process: it knows names by the address
// 127.0.0.1 and the root, is silent about those that are in trouble, and about
// everything while it is down.
type nameServer struct {
	conf string // a file as /etc/resolv.conf
	down atomic.Bool
}

// newNameServer skips on a machine that does not let a test listen on port 53 or
// give a process a resolv.conf of its own, and says so.
func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "mount", "--bind", "/etc/resolv.conf", "/etc/resolv.conf").CombinedOutput(); err != nil {
		t.Skipf("NOT PROVEN: a process gets no file system of its own: %v: %s", err, out)
	}
	address := fmt.Sprintf("127.%d.%d.%d", 64+rand.IntN(128), rand.IntN(256), 1+rand.IntN(254))
	conn, err := net.ListenPacket("udp", address+":53")
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("NOT PROVEN: a test may not listen on port 53: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := &nameServer{conf: filepath.Join(t.TempDir(), "resolv.conf")}
	if err := os.WriteFile(s.conf, []byte("nameserver "+address+"\noptions timeout:1 attempts:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		for packet := make([]byte, 1500); ; {
			n, from, err := conn.ReadFrom(packet)
			if err != nil {
				return // it is closed
			}
			if answer := s.answer(packet[:n]); answer != nil {
				conn.WriteTo(answer, from)
			}
		}
	}()
	return s
}

func (s *nameServer) answer(packet []byte) []byte {
	var query dnsmessage.Message
	if s.down.Load() || query.Unpack(packet) != nil || len(query.Questions) != 1 {
		return nil
	}
	asked := query.Questions[0]
	if strings.HasPrefix(asked.Name.String(), "trouble.") {
		return nil
	}
	answer := dnsmessage.Message{Header: dnsmessage.Header{ID: query.ID, Response: true, RecursionAvailable: true}, Questions: query.Questions}
	if asked.Type == dnsmessage.TypeA {
		answer.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: asked.Name, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	packed, err := answer.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// start runs walhook with this name server.
func (s *nameServer) start(t *testing.T, w *heldWorld) *childProcess {
	t.Helper()
	args := append([]string{"run", "--listen", w.address, "--allow-cidr", "127.0.0.0/8", "--admin-token", "operator-token"}, w.settings...)
	cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"--mount", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, s.conf, binary}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := startCommand(t, cmd, args)
	awaitReady(t, w.address)
	return p
}

// TestHeld_NameServersThatAreSilentCostNobodyAnything has them silent about all
// names, and then about one alone.
func TestHeld_NameServersThatAreSilentCostNobodyAnything(t *testing.T) {
	t.Parallel()
	names := newNameServer(t)
	names.down.Store(true)
	w := newHeldWorld(t)
	for account, host := range map[int]string{1: "127.0.0.1", 2: "good.example", 3: "trouble.example"} {
		w.db.Exec(t, fmt.Sprintf(`INSERT INTO users VALUES (%d, '%s')`, account, strings.Replace(w.server.URL(fmt.Sprint(account)), "127.0.0.1", host, 1)))
	}
	mustRun(t, append([]string{"setup"}, w.settings...)...)
	names.start(t, w)
	w.db.Exec(t, `INSERT INTO dids SELECT n, n, n FROM generate_series(1, 3) n`)
	awaitMetrics(t, w.address, "what needs no name server is delivered, and the others are held", func(m exposition) bool {
		return m.sum("walhook_attempts_total", "outcome", "delivered") == 1 && m.sum("walhook_lanes_held", "reason", "dns_here") == 2
	})
	eventually(t, 20*time.Second, func() bool {
		list := w.endpoints(t)
		return list["2"].HeldReason == "dns_here" && list["3"].HeldReason == "dns_here"
	})
	for account, e := range w.endpoints(t) {
		if e.State != "active" || e.Retries != 0 || (account == "1") != e.HeldSince.IsZero() {
			t.Errorf("account %s: %+v", account, e)
		}
	}
	wantText(t, "status", mustRun(t, append([]string{"status"}, w.settings[:4]...)...), "HELD", "dns_here")
	wantText(t, "doctor", doctorSays(t, w.settings...), "FAILED   outbox.held", "dns_here")
	wantFiring(t, w.address, 10, 50*time.Millisecond, "WalhookAttemptsHeld")

	names.down.Store(false)
	awaitMetrics(t, w.address, "all but one is delivered, and nothing is held", func(m exposition) bool {
		return m.sum("walhook_attempts_total", "outcome", "delivered") == 2 && m.sum("walhook_lanes_held") == 0 &&
			m.sum("walhook_attempts_total", "reason", "dns_timeout") > 0
	})
	eventually(t, 20*time.Second, func() bool {
		e := w.endpoints(t)["3"]
		return e.Retries == 1 && e.HeldSince.IsZero()
	})
}
