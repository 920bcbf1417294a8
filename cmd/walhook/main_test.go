package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"walhook/cdc/source"
)

// walhook runs a command in this process and returns what it printed.
func walhook(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := newRootCommand()
	root.SetArgs(append([]string{}, args...)) // nil would stand for the test binary's own
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestExitStatus_TellsFaultsApart(t *testing.T) {
	signalled, cancel := context.WithCancel(t.Context())
	cancel()
	gap := &source.GapError{Slot: "walhook", Reason: "the slot is lost"}
	for name, test := range map[string]struct {
		ctx  context.Context
		err  error
		want int
	}{
		"success":                {t.Context(), nil, exitOK},
		"signal":                 {signalled, fmt.Errorf("read: %w", context.Canceled), exitOK},
		"signal, no error":       {signalled, nil, exitOK},
		"fault after a signal":   {signalled, errors.New("disk full"), exitFault},
		"cancelled, no signal":   {t.Context(), context.Canceled, exitFault},
		"fault":                  {t.Context(), &source.Fault{Problem: "wal_level"}, exitFault},
		"usage":                  {t.Context(), fmt.Errorf("x: %w", usage(errors.New("y"))), exitUsage},
		"gap":                    {t.Context(), fmt.Errorf("read: %w", gap), exitGap},
		"gap that was not noted": {t.Context(), errors.Join(gap, errors.New("outbox away")), exitGap},
	} {
		if got := exitStatus(test.ctx, test.err); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestCommands_RefuseWrongUsage(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"rum", "did you mean run?"},
		{"frobnicate", "see 'walhook --help'"},
		{"version now", "see 'walhook version --help'"},
		{"run --colour", "see 'walhook run --help'"},
		{"demo now", "see 'walhook demo --help'"},
		{"demo --duration soon", "see 'walhook demo --help'"},
		{"setup", "source is missing"},
		{"doctor", "source is missing"},
		{"doctor --source postgres://u@h/d --old-transaction 0s", "--old-transaction"},
		{"run --role api", "outbox is missing"},
		{"endpoints secret", "see 'walhook endpoints secret --help'"},
	} {
		t.Run(test.line, func(t *testing.T) {
			out, err := walhook(t, strings.Fields(test.line)...)
			if err == nil || exitStatus(t.Context(), err) != exitUsage || !strings.Contains(err.Error(), test.want) || out != "" {
				t.Errorf("got %v, printed %q", err, out)
			}
		})
	}
}

func TestCommands_NeedNoManual(t *testing.T) {
	names := map[string]bool{}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.HasParent() {
			names[cmd.Name()] = true
			if cmd.Short == "" || len(cmd.Long) < 80 || !strings.Contains(cmd.Example, "walhook "+cmd.Name()) && !strings.Contains(cmd.Example, " "+cmd.Name()+" ") {
				t.Errorf("%s: no short or long help, or no example", cmd.CommandPath())
			}
		}
		for line := range strings.SplitSeq(cmd.Long, "\n") {
			if len([]rune(line)) > 84 {
				t.Errorf("%s: a line of the help is longer than a terminal: %s", cmd.CommandPath(), line)
			}
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRootCommand())
	for _, name := range []string{"demo", "setup", "teardown", "doctor", "run", "listen", "endpoints", "bench", "version"} {
		if !names[name] {
			t.Errorf("no command %s", name)
		}
	}
	out, err := walhook(t)
	if err != nil || !strings.Contains(out, "walhook demo") {
		t.Errorf("walhook alone: %v, printed %q", err, out)
	}
}

func TestVersion_NamesTheGoVersion(t *testing.T) {
	out, err := walhook(t, "version")
	if err != nil || !regexp.MustCompile(`^walhook \S+ \(commit .+\) go1\.\d+\S*\n$`).MatchString(out) {
		t.Errorf("got %q, %v", out, err)
	}
}

// A link for such an account would lead to a page that no browser can ask for.
func TestPortal_AnAccountWhoseIdIsAStepInAPathHasNoPage(t *testing.T) {
	for _, account := range []string{".", ".."} {
		if out, err := walhook(t, "portal", account, "--outbox", "postgres://nobody@127.0.0.1:1/none"); err == nil || !strings.Contains(err.Error(), "account "+account+" has no page") {
			t.Errorf("%s: %v %s", account, err, out)
		}
	}
}
