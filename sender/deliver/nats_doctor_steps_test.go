package deliver

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"walhook/doctor"
)

// A real server takes what doctor's commands change of a stream, and then doctor finds
// nothing.
func TestNATSDoctor_AStreamTakesItsCommands(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*jetstream.StreamConfig){
		"an age of seconds":       func(c *jetstream.StreamConfig) { c.MaxAge, c.Duplicates = 2*time.Second, 2*time.Second },
		"an age of minutes":       func(c *jetstream.StreamConfig) { c.MaxAge, c.Duplicates = 5*time.Minute, time.Minute },
		"a short window":          func(c *jetstream.StreamConfig) { c.Duplicates = time.Second },
		"tiny events":             func(c *jetstream.StreamConfig) { c.MaxMsgSize = 50 },
		"one of a subject":        func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 },
		"refuses a second of one": func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject, c.DiscardNewPerSubject = 1, true },
		"some subjects": func(c *jetstream.StreamConfig) {
			c.Subjects = []string{"nine.walhook.7.>", "nine.walhook.8.>", "other.>"}
		},
		"subjects of one schema": func(c *jetstream.StreamConfig) { c.Subjects = []string{"nine.walhook.*.dids.*"} },
		"more than the feed's":   func(c *jetstream.StreamConfig) { c.Subjects = []string{"nine.*.7.>"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js, s := newNATSServer(t)
			config := jetstream.StreamConfig{Name: "W", Subjects: []string{"nine.walhook.>"}, Discard: jetstream.DiscardNew, MaxAge: time.Hour, MaxBytes: 1 << 20, Duplicates: 10 * time.Minute}
			change(&config)
			if _, err := js.CreateStream(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			examine := func() doctor.Finding {
				return ExamineFeeds(t.Context(), Config{Version: "test"}, []NATSFeed{{Name: "f", URL: s.ClientURL(), Prefix: "nine.walhook"}})[0]
			}
			found := examine()
			if !found.Bad() || len(found.Fix) != 1 {
				t.Fatalf("doctor says %+v", found)
			}
			if left := strings.Contains(found.Fix[0].Note, "without "); left != (name == "more than the feed's") {
				t.Errorf("the note of %q is %q", found.Fix[0].Text, found.Fix[0].Note)
			}
			was := slices.Clone(config.Subjects)
			editStream(t, found.Fix[0].Text, &config)
			if _, err := js.UpdateStream(t.Context(), config); err != nil {
				t.Fatalf("%s: %v", found.Fix[0].Text, err)
			}
			if again := examine(); again.Bad() {
				t.Errorf("after %q doctor says %+v", found.Fix[0].Text, again)
			}
			if slices.Contains(was, "other.>") && !slices.Contains(config.Subjects, "other.>") {
				t.Errorf("%q takes a subject away", found.Fix[0].Text)
			}
		})
	}
}

// editStream does to a configuration what the client of NATS does for a command.
func editStream(t *testing.T, command string, c *jetstream.StreamConfig) {
	t.Helper()
	flags, is := strings.CutPrefix(strings.ReplaceAll(command, "'", ""), "nats stream edit W ")
	if !is {
		t.Fatalf("the command %q", command)
	}
	words := strings.Fields(strings.ReplaceAll(flags, "=", " "))
	subjects := []string{}
	for i := 0; i < len(words); i++ {
		value := func() string { i++; return words[i] }
		number := func() int {
			n, err := strconv.Atoi(value())
			if err != nil {
				t.Fatalf("%q: %v", command, err)
			}
			return n
		}
		length := func() time.Duration {
			text, unit := value(), time.Duration(1)
			if days, is := strings.CutSuffix(text, "d"); is {
				text, unit = days+"h", 24
			}
			d, err := time.ParseDuration(text)
			if err != nil {
				t.Fatalf("%q: %v", command, err)
			}
			return d * unit
		}
		switch words[i] {
		case "--max-age":
			c.MaxAge = length()
		case "--dupe-window":
			c.Duplicates = length()
		case "--max-msg-size":
			c.MaxMsgSize = int32(number())
		case "--max-msgs-per-subject":
			c.MaxMsgsPerSubject = int64(number())
		case "--no-discard-per-subject":
			c.DiscardNewPerSubject = false
		case "--subjects":
			subjects = append(subjects, value())
		default:
			t.Fatalf("%q has the flag %s", command, words[i])
		}
	}
	if len(subjects) > 0 {
		c.Subjects = subjects
	}
}
