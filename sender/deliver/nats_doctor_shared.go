package deliver

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"walhook/doctor"
)

// examinedFeed is a feed with the stream that takes it; nil for none.
type examinedFeed struct {
	NATSFeed
	stream *jetstream.StreamInfo
}

// examineShared warns of feeds that are in one stream, and names the commands that give
// each a stream of its own.
func examineShared(feeds []examinedFeed, r *doctor.Report) {
	for i := range feeds {
		f := &feeds[i]
		for j := range i {
			first := &feeds[j]
			if !sameStream(f.stream, first.stream) || slices.Contains(f.Apart, first.Name) {
				continue
			}
			r.Warn(checkNATS, separate(first, f, feeds),
				"feeds %s and %s are in one stream, %s (%s): it takes an event of both for a duplicate, and stores it for one of them alone; give each a stream of its own", first.Name, f.Name, f.stream.Config.Name, strings.Join(f.stream.Config.Subjects, " "))
			break // its steps part it from the others, too
		}
	}
}

// sameStream also tells streams of one name in different clusters or accounts apart.
func sameStream(a, b *jetstream.StreamInfo) bool {
	return a != nil && b != nil && a.Config.Name == b.Config.Name && a.Created.Equal(b.Created)
}

// separate returns the steps that give a feed a stream of its own: its stream no longer
// takes its subjects, another one does, and the feed has a prefix that no other feed uses.
func separate(first, f *examinedFeed, feeds []examinedFeed) (steps doctor.Steps) {
	prefix := f.Prefix
	if within(prefix, first.Prefix) || within(first.Prefix, prefix) {
		prefix = freePrefix(f.Name, feeds)
	}
	var keep []string
	for _, subject := range f.stream.Config.Subjects {
		if !meets(subject, prefix) {
			keep = append(keep, subject)
		}
	}
	if !slices.ContainsFunc(keep, func(s string) bool { return takesFeed(s, first.Prefix) }) {
		keep = append(keep, first.Prefix+".>")
	}
	if !slices.Equal(keep, f.stream.Config.Subjects) {
		steps = append(steps, doctor.Step{Kind: doctor.Shell, Text: editSubjects(f.stream.Config.Name, keep), Note: "so that it takes feed " + first.Name + " and not feed " + f.Name + "; add what else it is to take"})
	}
	steps = append(steps, doctor.Step{Kind: doctor.Shell, Text: addStream(prefix, max(f.stream.Config.Replicas, 1)), Note: "for feed " + f.Name})
	if prefix != f.Prefix {
		steps = append(steps, doctor.Step{Kind: doctor.Command, Text: fmt.Sprintf("walhook feeds change %s --prefix %s", f.Name, prefix), Note: "what is not delivered yet goes there, too"})
	}
	return steps
}

// freePrefix is a prefix of one token that no feed uses.
func freePrefix(name string, feeds []examinedFeed) string {
	base := "walhook_" + strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
			return c
		}
		return '_'
	}, name)
	prefix := base
	for n := 2; slices.ContainsFunc(feeds, func(f examinedFeed) bool { return within(f.Prefix, prefix) }); n++ {
		prefix = fmt.Sprint(base, n)
	}
	return prefix
}

// meets says that a stream's subject matches some subject of a feed.
func meets(subject, prefix string) bool {
	tokens := strings.Split(subject, ".")
	feed := append(strings.Split(prefix, "."), "*", "*", "*") // account, schema, type: any
	for i, token := range tokens {
		switch {
		case token == ">":
			return i < len(feed)
		case i >= len(feed) || token != "*" && feed[i] != "*" && token != feed[i]:
			return false
		}
	}
	return len(tokens) == len(feed)
}

// within says that a prefix's subjects are another's, too.
func within(inner, outer string) bool { return strings.HasPrefix(inner+".", outer+".") }
