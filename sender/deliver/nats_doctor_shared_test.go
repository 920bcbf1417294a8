package deliver

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"walhook/doctor"
)

// newJetStream is a server with JetStream, and a client of it.
func newJetStream(t *testing.T) (jetstream.JetStream, string) {
	t.Helper()
	js, s := newNATSServer(t)
	return js, s.ClientURL()
}

// The steps for feeds that share a stream, carried out as they are written, give each a
// stream of its own, whatever the stream takes and whatever the prefixes are.
func TestNATSDoctor_PartsFeedsThatShareAStream(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		prefixes []string // of the feeds
		subjects []string // of the stream
		apart    bool
	}{
		"one prefix":                    {[]string{"walhook", "walhook"}, []string{"walhook.>"}, false},
		"one prefix, each taken apart":  {[]string{"walhook", "walhook"}, []string{"walhook.*.*.*", "other"}, false},
		"two prefixes, named both":      {[]string{"walhook", "crm"}, []string{"walhook.>", "crm.>"}, false},
		"two prefixes, by a wildcard":   {[]string{"carrier.walhook", "carrier.crm"}, []string{"carrier.*.*.*.*"}, false},
		"one within the other":          {[]string{"walhook", "walhook.crm"}, []string{"walhook.>"}, false},
		"the other within the one":      {[]string{"walhook.crm", "walhook"}, []string{"walhook.>"}, false},
		"three":                         {[]string{"walhook", "walhook", "crm"}, []string{"walhook.>", "crm.>"}, false},
		"nothing that both get":         {[]string{"walhook", "walhook"}, []string{"walhook.>"}, true},
		"the name that comes to mind":   {[]string{"walhook", "walhook", "walhook_feed1"}, []string{"walhook.>", "walhook_feed1.>"}, false},
		"a prefix of the feed's tokens": {[]string{"carrier.walhook", "carrier.crm"}, []string{"carrier.>"}, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			js, url := newJetStream(t)
			good := jetstream.StreamConfig{Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, MaxAge: time.Hour, Duplicates: 10 * time.Minute}
			add := func(name string, subjects []string) {
				t.Helper()
				config := good
				config.Name, config.Subjects = name, subjects
				if _, err := js.CreateOrUpdateStream(t.Context(), config); err != nil {
					t.Fatalf("stream %s of %q: %v", name, subjects, err)
				}
			}
			add("ALL", c.subjects)
			var feeds []NATSFeed
			for i, prefix := range c.prefixes {
				feed := NATSFeed{Name: "feed" + string(rune('0'+i)), URL: url, Prefix: prefix}
				if c.apart && i > 0 {
					feed.Apart = []string{"feed0"}
				}
				feeds = append(feeds, feed)
			}
			examine := func() doctor.Finding {
				return ExamineFeeds(t.Context(), Config{Version: "test"}, feeds)[0]
			}
			found := examine()
			if shared := strings.Contains(found.Evidence, "are in one stream, ALL"); shared == c.apart {
				t.Fatalf("doctor says %+v", found)
			}
			for range len(feeds) { // what a step parts may have to be parted from a third
				for _, step := range found.Fix {
					carryOut(t, step, feeds, add)
				}
				if found = examine(); !found.Bad() {
					return
				}
			}
			t.Errorf("after its own steps doctor says %+v", found)
		})
	}
}

// Two clusters may have streams of one name.
func TestNATSDoctor_TellsStreamsOfOneNameApart(t *testing.T) {
	t.Parallel()
	var feeds []NATSFeed
	for _, name := range []string{"here", "there"} {
		js, url := newJetStream(t)
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "WALHOOK", Subjects: []string{"walhook.>"}, MaxAge: time.Hour, Duplicates: 10 * time.Minute}); err != nil {
			t.Fatal(err)
		}
		feeds = append(feeds, NATSFeed{Name: name, URL: url, Prefix: "walhook"})
	}
	if found := ExamineFeeds(t.Context(), Config{Version: "test"}, feeds)[0]; found.Bad() {
		t.Errorf("doctor says %+v", found)
	}
}

// carryOut does what a step of doctor says.
func carryOut(t *testing.T, step doctor.Step, feeds []NATSFeed, stream func(string, []string)) {
	t.Helper()
	words := strings.Fields(strings.ReplaceAll(step.Text, "'", ""))
	if step.Kind == doctor.Command {
		i := slices.IndexFunc(feeds, func(f NATSFeed) bool { return len(words) == 6 && f.Name == words[3] })
		if i < 0 || words[4] != "--prefix" {
			t.Fatalf("the step %q", step.Text)
		}
		feeds[i].Prefix = words[5]
		return
	}
	if len(words) < 6 || words[0] != "nats" || words[1] != "stream" {
		t.Fatalf("the step %q", step.Text)
	}
	var subjects []string
	for i, word := range words {
		if word == "--subjects" {
			subjects = append(subjects, words[i+1])
		}
	}
	stream(words[3], subjects)
}

func TestNATSDoctor_KnowsWhetherAStreamTakesSomeOfAFeed(t *testing.T) {
	for subject, want := range map[string]bool{
		">": true, "walhook.>": true, "*.>": true, "walhook.*.*.*": true, "walhook.7.>": true, "walhook.*.dids.*": true, "*.7.dids.insert": true,
		"walhook.*.*": false, "walhook.*.*.*.*": false, "walhook": false, "other.>": false, "other.*.*.*": false,
	} {
		if meets(subject, "walhook") != want {
			t.Errorf("a stream of %s takes some of the feed: %v", subject, !want)
		}
	}
}
