package bench

import (
	"os"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// Cores are CPU seconds per second, by who used them.
type Cores struct {
	Walhook   Spread `json:"walhook"`
	Postgres  Spread `json:"postgres"` // the carrier's own transactions included
	Receivers Spread `json:"receivers"`
	Bench     Spread `json:"bench"` // this process: the carrier's clients
	// Others are processes that do not belong to the benchmark, and the kernel's own
	// work. If they use much, the figures are worse than the machine allows.
	Others Spread `json:"others"`
}

func coresSpread[R any](runs []R, cores func(R) usage) Cores {
	return Cores{
		Walhook:   spreadOf(runs, func(r R) float64 { return cores(r).walhook }),
		Postgres:  spreadOf(runs, func(r R) float64 { return cores(r).postgres }),
		Receivers: spreadOf(runs, func(r R) float64 { return cores(r).receivers }),
		Bench:     spreadOf(runs, func(r R) float64 { return cores(r).bench }),
		Others:    spreadOf(runs, func(r R) float64 { return cores(r).others() }),
	}
}

// usage is the CPU time used up to a moment, in seconds. It is 0 if the system does not
// provide it; only Linux does.
type usage struct {
	at                                  time.Time
	walhook, postgres, receivers, bench float64
	machine                             float64 // of all processes

	// Of the measure scale, where walhook is the publisher and postgres the source.
	senders, outbox                    float64
	outboxOfPublisher, outboxOfSenders float64 // sessions on the outbox, and in it
}

// usage reads the CPU times; that of walhook is 0 while none runs.
func (w *world) usage() usage {
	u := usage{
		at: time.Now(), postgres: treeCPU(w.b.cluster.PID()), receivers: treeCPU(w.b.receiver.pid()),
		bench: processCPU(os.Getpid()), machine: machineCPU(),
	}
	if w.walhook != nil {
		u.walhook = treeCPU(w.walhook.pid())
	}
	for _, sender := range w.senders {
		u.senders += treeCPU(sender.pid())
	}
	if w.server != w.b.cluster {
		u.outbox = treeCPU(w.server.PID())
		u.outboxOfPublisher, u.outboxOfSenders = sessionsCPU(w.server.PID(), publisherRole), sessionsCPU(w.server.PID(), sendersRole)
	}
	return u
}

// others returns the CPU time of processes that are not ours.
func (u usage) others() float64 {
	return max(u.machine-u.walhook-u.senders-u.postgres-u.outbox-u.receivers-u.bench, 0)
}

// together counts the senders as walhook and the outbox's server as PostgreSQL.
func (u usage) together() usage {
	u.walhook, u.senders = u.walhook+u.senders, 0
	u.postgres, u.outbox = u.postgres+u.outbox, 0
	return u
}

// since returns the CPU time used since then.
func (u usage) since(then usage) usage {
	return usage{
		at: u.at, walhook: u.walhook - then.walhook, postgres: u.postgres - then.postgres,
		receivers: u.receivers - then.receivers, bench: u.bench - then.bench, machine: u.machine - then.machine,
		senders: u.senders - then.senders, outbox: u.outbox - then.outbox,
		outboxOfPublisher: u.outboxOfPublisher - then.outboxOfPublisher, outboxOfSenders: u.outboxOfSenders - then.outboxOfSenders,
	}
}

// times returns a multiple of the CPU times.
func (u usage) times(factor float64) usage {
	return usage{
		at: u.at, walhook: u.walhook * factor, postgres: u.postgres * factor,
		receivers: u.receivers * factor, bench: u.bench * factor, machine: u.machine * factor,
		senders: u.senders * factor, outbox: u.outbox * factor,
		outboxOfPublisher: u.outboxOfPublisher * factor, outboxOfSenders: u.outboxOfSenders * factor,
	}
}

// cores returns the CPU seconds per second since then.
func (u usage) cores(then usage) usage {
	return u.since(then).times(1 / u.at.Sub(then.at).Seconds())
}

// machineCPU returns the busy time of all processors.
func machineCPU() float64 {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0
	}
	stat, err := fs.Stat()
	if err != nil {
		return 0
	}
	all := stat.CPUTotal
	return all.User + all.Nice + all.System + all.IRQ + all.SoftIRQ + all.Steal
}

// processCPU returns the CPU time of a process without its children.
func processCPU(pid int) float64 {
	process, err := procfs.NewProc(pid)
	if err != nil {
		return 0
	}
	stat, err := process.Stat()
	if err != nil {
		return 0
	}
	return stat.CPUTime()
}

// userHZ is the unit of CPU time in /proc (proc_pid_stat(5)): fixed on all
// architectures that Go runs on.
const userHZ = 100

// treeCPU returns the CPU time of a process and its children, ended ones included; 0 if
// the system does not provide it.
func treeCPU(root int) float64 {
	processes, err := procfs.AllProcs()
	if err != nil {
		return 0
	}
	var ticks int
	for _, p := range processes {
		stat, err := p.Stat()
		if err != nil {
			continue // it has just ended, and its time counts for its parent
		}
		switch root {
		case p.PID:
			ticks += int(stat.UTime) + int(stat.STime) + stat.CUTime + stat.CSTime
		case stat.PPID:
			ticks += int(stat.UTime) + int(stat.STime)
		}
	}
	return float64(ticks) / userHZ
}

// sessionsCPU returns the CPU time of a server's sessions of a role: the server names its
// processes "postgres: role database host(port) state". Sessions that have ended are
// missing.
func sessionsCPU(server int, role string) float64 {
	processes, err := procfs.AllProcs()
	if err != nil {
		return 0
	}
	var ticks int
	for _, p := range processes {
		stat, err := p.Stat()
		if err != nil || stat.PPID != server {
			continue
		}
		if words, err := p.CmdLine(); err == nil && len(words) > 0 && strings.Contains(words[0], ": "+role+" ") {
			ticks += int(stat.UTime) + int(stat.STime)
		}
	}
	return float64(ticks) / userHZ
}

// memoryOf returns the resident memory of a running process and its peak, in bytes; zero
// if the system does not provide them. rusage does not help, because a child's peak
// begins with its parent's.
func memoryOf(pid int) (status procfs.ProcStatus) {
	process, err := procfs.NewProc(pid)
	if err != nil {
		return status
	}
	status, _ = process.NewStatus() // a process that has just ended has none
	return status
}

func mebibytes(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
