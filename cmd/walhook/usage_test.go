package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// nowhere is an outbox that does not answer: a usage error comes before any connection.
const nowhere = "postgres://u@127.0.0.1:1/d?connect_timeout=1"

func refusesUsage(t *testing.T, want string, args ...string) {
	t.Helper()
	out, err := walhook(t, args...)
	if err == nil || exitStatus(t.Context(), err) != exitUsage || !strings.Contains(err.Error(), want) || out != "" {
		t.Errorf("walhook %q: %v, want %q; printed %q", args, err, want, out)
	}
}

// An empty flag, such as a shell variable that is not set, never selects the default.
func TestUsage_RefusesEveryEmptyFlag(t *testing.T) {
	var visit func(cmd *cobra.Command)
	tried := 0
	visit = func(cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
		if !cmd.Runnable() || cmd.Hidden {
			return
		}
		line := strings.Fields(cmd.CommandPath())[1:]
		for _, word := range strings.Fields(cmd.Use)[1:] {
			if strings.HasPrefix(word, "<") {
				line = append(line, "7")
			}
		}
		cmd.Flags().VisitAll(func(flag *pflag.Flag) {
			if flag.Name == "help" || slices.Contains(mayBeEmpty, flag.Name) {
				return
			}
			tried++
			for _, empty := range []string{"", " "} {
				refusesUsage(t, "--"+flag.Name+" is empty: give it a value", append(line, "--"+flag.Name+"="+empty)...)
			}
		})
	}
	visit(newRootCommand())
	if tried < 100 {
		t.Errorf("only %d flags were tried", tried)
	}
}

func TestUsage_RefusesEmptyArguments(t *testing.T) {
	for _, line := range [][]string{
		{"endpoints", "disable", "", "--all"}, {"endpoints", "enable", " "}, {"endpoints", "holds", ""}, {"endpoints", "secret", ""},
		{"endpoints", "rotate", ""}, {"endpoints", "ordering", ""},
	} {
		refusesUsage(t, "account", append(line, "--outbox", nowhere)...)
		refusesUsage(t, "is empty: give it a value", append(line, "--outbox", nowhere)...)
	}
	refusesUsage(t, "[none|record|strict] is empty", "endpoints", "ordering", "7", "", "--outbox", nowhere)
}

func TestUsage_RefusesListsWithAnEmptyItem(t *testing.T) {
	for flag, values := range map[string][]string{
		"retry-schedule":  {"5s,,30s", ",5s", "5s,"},
		"messages":        {"a,,b", ",", "off,walhook", "walhook,off"},
		"role":            {"sender,,api", "sender,"},
		"allow-cidr":      {"10.0.0.0/8,,192.0.2.0/24", ","},
		"deny-cidr":       {"10.0.0.0/8,", ","},
		"trusted-proxies": {",10.0.0.7/32"},
		"allow-ports":     {"80,,443", "443,"},
	} {
		for _, value := range values {
			refusesUsage(t, "--"+flag+": ", "run", "--source", nowhere, "--listen", "off", "--"+flag, value)
		}
	}
	for _, value := range []string{"evt_1,,evt_2", ",", "evt_1,"} {
		refusesUsage(t, "--id ", "replay", "--outbox", nowhere, "--id", value)
	}
	refusesUsage(t, "--id is empty", "replay", "--outbox", nowhere, "--id", "evt_1", "--id", "")
	if _, err := load(t, []string{"--config", configFile(t, "source: "+testURL+"\nallow-cidr: []\nmessages: [walhook]\n")}, nil); err != nil {
		t.Errorf("an empty list of the file: %v", err)
	}
	if _, err := load(t, []string{"--config", configFile(t, "source: "+testURL+"\nallow-cidr: [10.0.0.0/8, '']\n")}, nil); err == nil || !strings.Contains(err.Error(), "item 2 of the list is empty") {
		t.Errorf("a list of the file with an empty item: %v", err)
	}
}

// A flag's value is refused in walhook's words, with what to write instead.
func TestUsage_SaysWhatAFlagTakes(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"replay --endpoint x", `--endpoint "x": want a whole number; see 'walhook replay --help'`},
		{"replay --endpoint 99999999999999999999", `--endpoint "99999999999999999999": want a whole number`},
		{"replay --rate fast", `--rate "fast": want a number`},
		{"endpoints rotate 7 --overlap 400d", `--overlap "400d": want a duration of hours, minutes and seconds`},
		{"status --every soon", `--every "soon": want a duration`},
		{"listen --status ok", `--status "ok": want a whole number`},
		{"demo --seed -1", `--seed "-1": want a whole number, 0 or more`},
		{"status --json=maybe", `--json "maybe": want true or false`},
		{"bench --rates 1,x", `--rates "1,x": want numbers, comma separated`},
		{"bench --fan-out 1,x", `--fan-out "1,x": want whole numbers, comma separated`},
	} {
		refusesUsage(t, test.want, strings.Fields(test.line)...)
		if _, err := walhook(t, strings.Fields(test.line)...); err != nil && strings.ContainsAny(err.Error(), "\n") ||
			strings.Contains(err.Error(), "strconv") || strings.Contains(err.Error(), "time:") {
			t.Errorf("%s: %v", test.line, err)
		}
	}
	// Every type of flag has its words.
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(flag *pflag.Flag) {
			if kind := flag.Value.Type(); wantedValues[kind] == "" && kind != "string" && kind != "ids" {
				t.Errorf("%s --%s: a wrong %s is not described", cmd.CommandPath(), flag.Name, kind)
			}
		})
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRootCommand())
	refusesUsage(t, "--endpoint 0: want the number of an endpoint", "replay", "--outbox", nowhere, "--endpoint", "0", "--since", "1h")
	refusesUsage(t, "--endpoint -3: want the number of an endpoint", "replay", "--outbox", nowhere, "--endpoint", "-3", "--since", "1h")
}
