package outbox

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// processIdentity names this process so that another one on the same machine
// can tell whether it still lives: the machine's boot, the namespace that its
// number counts in, the number, and when it started (Linux, proc(5)). It is ""
// where that cannot be known; then a lease simply runs out.
func processIdentity() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	pid := os.Getpid()
	started, _ := processStart(pid)
	if started == "" {
		return ""
	}
	return fmt.Sprintf("%s %s %d %s", strings.TrimSpace(string(boot)), namespace, pid, started)
}

// isDead says whether a process is certainly gone: it was one of this boot and
// this namespace, and its number is free, another's, or a zombie's.
func isDead(identity, mine string) bool {
	its, ours := strings.Fields(identity), strings.Fields(mine)
	if len(its) != 4 || len(ours) != 4 || its[0] != ours[0] || its[1] != ours[1] {
		return false
	}
	pid, err := strconv.Atoi(its[2])
	if err != nil {
		return false
	}
	started, zombie := processStart(pid)
	if started == "" {
		return isFree(pid) // or hidden from us, or we are short of files
	}
	return zombie || started != its[3]
}

// isFree says whether no process has this number.
func isFree(pid int) bool {
	p, err := os.FindProcess(pid)
	return err == nil && errors.Is(p.Signal(syscall.Signal(0)), os.ErrProcessDone)
}

// processStart is when a process started, in clock ticks since boot; "" when
// there is none with this number.
func processStart(pid int) (ticks string, zombie bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false
	}
	// The second field is the program's name in parentheses and may hold
	// anything; what follows the last one is regular.
	_, rest, ok := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", false
	}
	return fields[19], fields[0] == "Z" || fields[0] == "X"
}
