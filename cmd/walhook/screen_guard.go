package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/charmbracelet/x/ansi"
)

// guardScript waits for the end of its input, which is the end of its owner or the word
// done. Then it restores the terminal's settings ($1). If the owner died, it also leaves
// the screen ($2) and prints the owner's last words, which the screen took with it.
const guardScript = `
words=$(cat)
stty "$1" <&1
[ "$words" = done ] && exit 0
printf '%s' "$2"
[ -n "$words" ] && printf '%s\n' "$words"
exit 0`

// screenGuard is a shell that outlives this process. It restores the terminal after a
// panic in any goroutine and after every signal, also those that no process can catch. It
// has a session of its own, so no signal of the terminal reaches it.
type screenGuard struct {
	cmd  *exec.Cmd
	word *os.File
}

// startScreenGuard stops the terminal's echo and its suspend key, and watches over it.
// whole says that the screen takes the whole window.
func startScreenGuard(tty *os.File, whole bool) (*screenGuard, error) {
	saved, err := stty(tty, "-g")
	if err != nil {
		return nil, err
	}
	restore := ansi.ResetStyle + ansi.SetModeTextCursorEnable + "\r\n"
	if whole {
		restore = ansi.ResetModeAltScreenSaveCursor + restore
	}
	input, word, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("guard the terminal: %w", err)
	}
	defer input.Close()
	cmd := exec.Command("/bin/sh", "-c", guardScript, "walhook-screen", saved, restore)
	cmd.Dir, cmd.Stdin, cmd.Stdout = "/", input, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		_ = word.Close()
		return nil, fmt.Errorf("guard the terminal: %w", err)
	}
	g := &screenGuard{cmd: cmd, word: word}
	if _, err = stty(tty, "-echo", "susp", "undef"); err == nil {
		err = debug.SetCrashOutput(word, debug.CrashOptions{})
	}
	if err != nil {
		g.release()
		return nil, err
	}
	return g, nil
}

// release has the guard restore the settings, and ends it.
func (g *screenGuard) release() {
	_ = debug.SetCrashOutput(nil, debug.CrashOptions{}) // fails only for a file
	_, _ = io.WriteString(g.word, "done")               // without its reader there is nothing to restore
	_ = g.word.Close()
	_ = g.cmd.Wait()
}

// stty runs the standard program: the settings of terminals differ between systems.
func stty(tty *os.File, args ...string) (string, error) {
	cmd := exec.Command("stty", args...)
	cmd.Stdin = tty
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("stty %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
