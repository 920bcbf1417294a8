//go:build unix && !linux

package pgcluster

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// endWithParent does nothing: on these systems the watchdog ends the server.
func endWithParent(*syscall.SysProcAttr) {}

func childrenOf(parent int) []int {
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(parent)).Output()
	if err != nil {
		return nil
	}
	var children []int
	for _, field := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(field); err == nil {
			children = append(children, pid)
		}
	}
	return children
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }
