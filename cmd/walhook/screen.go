package main

import (
	"io"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
	"golang.org/x/sys/unix"
)

// drawing returns the text of a window of so many columns and rows: at most that many
// lines. It is called ten times a second, and text from outside must be printable.
type drawing func(width, height int) string

// screen shows a text that changes in one place of a terminal, instead of lines that
// scroll. It reads no keys: Ctrl-C stays the signal that it is everywhere else. Meanwhile
// the terminal echoes nothing, and a guard restores it if this process dies.
type screen struct {
	program *tea.Program
	guard   *screenGuard
	ended   chan error
}

const repaintEvery = 100 * time.Millisecond

// openScreen shows what draw returns on out until close. A screen that is whole takes the
// whole window and leaves nothing behind; otherwise it takes lines below what is there. It
// returns nil if out is nothing on which a text can change: callers print lines then.
func openScreen(out io.Writer, whole bool, draw drawing) *screen {
	tty := screenTerminal(out)
	if tty == nil {
		return nil
	}
	guard, err := startScreenGuard(tty, whole)
	if err != nil {
		return nil
	}
	options := []tea.ProgramOption{
		tea.WithInput(nil), tea.WithOutput(tty), tea.WithFPS(int(time.Second / repaintEvery)),
		tea.WithoutSignalHandler(), tea.WithoutCatchPanics(), // a panic ends the process, and the guard restores the terminal
	}
	if os.Getenv("NO_COLOR") != "" { // https://no-color.org: any value; the library wants a boolean
		options = append(options, tea.WithColorProfile(colorprofile.ASCII))
	}
	s := &screen{program: tea.NewProgram(screenModel{draw: draw, whole: whole}, options...), guard: guard, ended: make(chan error, 1)}
	go func() {
		_, err := s.program.Run()
		s.ended <- err
	}()
	return s
}

// screenTerminal returns the terminal behind out. It is nil for a file, a pipe, TERM=dumb
// and the terminal of another foreground job.
func screenTerminal(out io.Writer) *os.File {
	file := fileOf(out)
	if file == nil {
		return nil
	}
	if name := os.Getenv("TERM"); name == "" || name == "dumb" {
		return nil
	}
	// Only our own terminal has a foreground group, so this fails for everything else.
	if group, err := unix.IoctlGetInt(int(file.Fd()), unix.TIOCGPGRP); err != nil || group != unix.Getpgrp() {
		return nil
	}
	return file
}

// close removes the text and restores the terminal. It does nothing for no screen.
func (s *screen) close() error {
	if s == nil {
		return nil
	}
	s.program.Quit()
	err := <-s.ended
	s.guard.release()
	return err
}

// screenModel draws again and again, since what it shows changes by itself.
type screenModel struct {
	draw          drawing
	whole         bool
	width, height int
}

type repaintMsg struct{}

func repaint() tea.Cmd {
	return tea.Tick(repaintEvery, func(time.Time) tea.Msg { return repaintMsg{} })
}

func (m screenModel) Init() tea.Cmd { return repaint() }

func (m screenModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case repaintMsg:
		return m, repaint()
	}
	return m, nil
}

func (m screenModel) View() tea.View {
	v := tea.NewView("")
	if m.width > 0 && m.height > 0 {
		v.SetContent(m.draw(m.width, m.height))
	}
	v.AltScreen = m.whole
	v.DisableBracketedPasteMode = true
	return v
}

// fit cuts lines to a window. If there are too many it leaves out the last ones but
// says so.
func fit(lines []string, width, height int) string {
	if over := len(lines) - height; over > 0 && height > 0 {
		lines = append(lines[:height-1:height-1], styleFaint.Styled("… more lines than the window has: make it higher"))
	}
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, width, "…")
	}
	return strings.Join(lines, "\n")
}

// The styles of a screen. The library leaves out what the terminal does not have.
var (
	styleFaint = ansi.NewStyle().Faint()
	styleTitle = ansi.NewStyle().Bold()
	styleGood  = ansi.NewStyle().ForegroundColor(ansi.Green)
	styleBad   = ansi.NewStyle().ForegroundColor(ansi.Red)
)
