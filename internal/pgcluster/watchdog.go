package pgcluster

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// watchdogScript reads a line from its owner. If the input ends without one, the owner has
// died: the script ends the server if it still runs, and removes the folder ($1). It
// signals a pid only if that process was started on the folder.
const watchdogScript = `
read -r word
[ "$word" = done ] && exit 0
server() {
	pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) || return 1
	[ -n "$pid" ] || return 1
	if [ -r "/proc/$pid/cmdline" ]; then line=$(tr '\0' ' ' <"/proc/$pid/cmdline")
	else line=$(ps -o command= -p "$pid" 2>/dev/null); fi
	case "$line" in *"$1/data"*) return 0 ;; esac
	return 1
}
server "$1" && kill -QUIT "$pid" 2>/dev/null
for tick in 1 2 3 4 5 6 7 8 9 10; do
	rm -rf "$1" 2>/dev/null && [ ! -e "$1" ] && exit 0
	sleep 1
	server "$1" && kill -KILL "$pid" 2>/dev/null
done
exit 1
`

// watchdog is a shell that outlives this process. It has its own session, so no signal of
// the terminal reaches it, and it keeps none of our files open.
type watchdog struct {
	cmd  *exec.Cmd
	word io.WriteCloser
}

func startWatchdog(dir string) (*watchdog, error) {
	cmd := exec.Command("/bin/sh", "-c", watchdogScript, "walhook-watchdog", dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	word, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the watchdog: %w", err)
	}
	return &watchdog{cmd: cmd, word: word}, nil
}

// release ends the watchdog without any action.
func (w *watchdog) release() error {
	if _, err := io.WriteString(w.word, "done\n"); err != nil {
		return fmt.Errorf("release the watchdog: %w", err)
	}
	_ = w.word.Close()
	return w.cmd.Wait()
}

// endOrphan ends the server of a dead process's folder, if it runs.
func endOrphan(dir string) {
	pid := postmasterPID(dir)
	if pid == 0 || !startedOn(pid, dir) {
		return
	}
	_ = syscall.Kill(pid, syscall.SIGQUIT)
	for deadline := time.Now().Add(5 * time.Second); alive(pid) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
}

// startedOn reports whether the process's command line names the folder.
func startedOn(pid int, dir string) bool {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		line, err = exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	}
	return err == nil && bytes.Contains(line, []byte(dir+"/data"))
}
