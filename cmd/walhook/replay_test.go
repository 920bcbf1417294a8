package main

import (
	"strings"
	"testing"
	"time"
)

func TestReplay_SaysWhatIsMissing(t *testing.T) {
	for _, test := range []struct {
		want string
		args []string
	}{
		{"whose events?", nil},
		{"exclude each other", []string{"--account", "7", "--endpoint", "1", "--since", "1h"}},
		{"--webhook needs --account", []string{"--endpoint", "1", "--webhook", "x", "--since", "1h"}},
		{"which events?", []string{"--account", "7"}},
		{"which events?", []string{"--account", "7", "--since", "1h", "--id", "evt_1"}},
		{"an age such as 2h", []string{"--account", "7", "--since", "yesterday"}},
		{"rate 0", []string{"--account", "7", "--since", "1h", "--rate", "0"}},
	} {
		var f replayFlags
		cmd := newReplayCommand()
		if err := cmd.ParseFlags(test.args); err != nil {
			t.Fatal(err)
		}
		f.account, _ = cmd.Flags().GetString("account")
		f.webhook, _ = cmd.Flags().GetString("webhook")
		f.since, _ = cmd.Flags().GetString("since")
		f.endpoint, _ = cmd.Flags().GetInt64("endpoint")
		f.ids = *cmd.Flags().Lookup("id").Value.(*idList)
		f.rate, _ = cmd.Flags().GetFloat64("rate")
		if _, err := f.check(time.Now()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v, want %q", test.args, err, test.want)
		}
	}
}

func TestReplay_CancelStandsAlone(t *testing.T) {
	for want, args := range map[string][]string{
		"--cancel and --account exclude each other": {"--cancel", "4", "--account", "7"},
		"--cancel and --rate exclude each other":    {"--cancel", "4", "--rate", "5"},
		"want the number of a replay":               {"--cancel", "0"},
	} {
		var f replayFlags
		cmd := newReplayCommand()
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		f.cancel, _ = cmd.Flags().GetInt64("cancel")
		if err := f.checkCancel(cmd.Flags()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}
