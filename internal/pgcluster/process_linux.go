package pgcluster

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// endWithParent makes the kernel send the signal for an immediate shutdown when this
// process dies.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }

func childrenOf(parent int) []int {
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	var children []int
	for _, path := range paths {
		_, ppid, ok := readStat(path)
		if ok && ppid == parent {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			children = append(children, pid)
		}
	}
	return children
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	state, _, ok := readStat(fmt.Sprintf("/proc/%d/stat", pid))
	return ok && state != 'Z' && state != 'X'
}

// readStat reads state and parent, the two fields behind the name, which is in
// parentheses and may hold anything (proc_pid_stat(5)).
func readStat(path string) (state byte, ppid int, ok bool) {
	stat, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, false
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, 0, false
	}
	ppid, err = strconv.Atoi(string(fields[1]))
	return fields[0][0], ppid, err == nil
}
