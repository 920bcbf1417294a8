package bench

import (
	"os"
	"time"

	"github.com/prometheus/procfs"
)

// Cores are seconds of CPU a second, by who used them.
type Cores struct {
	Walhook   Spread `json:"walhook"`
	Postgres  Spread `json:"postgres"`  // the carrier's own transactions included
	Receivers Spread `json:"receivers"` // the other end
	Bench     Spread `json:"bench"`     // this process: the carrier's clients
	// Others are processes that have nothing to do with the benchmark, and
	// what the kernel does for nobody in particular. Where they use much,
	// figures are worse than the machine can do.
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

// usage is the CPU time that has been used by a moment, in seconds. What the
// system cannot tell is 0: only Linux can.
type usage struct {
	at                                  time.Time
	walhook, postgres, receivers, bench float64
	machine                             float64 // by everybody
}

// usage reads it; of walhook it is 0 while none runs.
func (w *world) usage() usage {
	u := usage{
		at: time.Now(), postgres: treeCPU(w.b.cluster.PID()), receivers: treeCPU(w.b.receiver.pid()),
		bench: processCPU(os.Getpid()), machine: machineCPU(),
	}
	if w.walhook != nil {
		u.walhook = treeCPU(w.walhook.pid())
	}
	return u
}

// others is what was used by nobody of ours.
func (u usage) others() float64 {
	return max(u.machine-u.walhook-u.postgres-u.receivers-u.bench, 0)
}

// cores are the seconds of CPU a second that were used since.
func (u usage) cores(since usage) usage {
	seconds := u.at.Sub(since.at).Seconds()
	return usage{
		walhook: (u.walhook - since.walhook) / seconds, postgres: (u.postgres - since.postgres) / seconds,
		receivers: (u.receivers - since.receivers) / seconds, bench: (u.bench - since.bench) / seconds,
		machine: (u.machine - since.machine) / seconds,
	}
}

// machineCPU is what all processors have been busy with.
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

// processCPU is what a process has used without its children.
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

// treeCPU is what a process, its children and those that it has outlived have
// used; 0 where the system does not tell.
func treeCPU(root int) float64 {
	processes, err := procfs.AllProcs()
	if err != nil {
		return 0
	}
	var ticks int
	for _, p := range processes {
		stat, err := p.Stat()
		if err != nil {
			continue // it has just ended: its parent has its time
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

// memoryOf is what a running process has resident, and has had at most, in
// bytes; zero where the system does not tell. rusage is of no use here: a
// child's begins with its parent's.
func memoryOf(pid int) (status procfs.ProcStatus) {
	process, err := procfs.NewProc(pid)
	if err != nil {
		return status
	}
	status, _ = process.NewStatus() // a process that has just ended has none
	return status
}

func mebibytes(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
