package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"walhook/doctor"
)

// checkNATS is the id of the check of feeds over NATS, which never changes.
const checkNATS = "feeds.nats"

// FeedChecks returns the ids of the checks of [ExamineFeeds].
func FeedChecks() []string { return []string{checkNATS} }

// NATSFeed is a feed over NATS, for doctor.
type NATSFeed struct {
	Name, URL, Prefix string
	Apart             []string // the names of feeds that have no event in common with it
}

// leastDuplicates is the shortest window in which a stream should know an event again: the
// first three retries come within it.
const leastDuplicates = 2 * time.Minute

// leastAge is how long a stream should keep an event, at least: as long as the window that
// doctor advises, which cannot be longer.
const leastAge = 10 * time.Minute

// leastMessage is the least that a stream should take of an event: rows with a few texts.
const leastMessage = 64 << 10

const examineNATSTimeout = 10 * time.Second

// ExamineFeeds checks, of each feed over NATS, that its servers take this machine's
// credentials, and that a stream takes its subjects and has limits that fit.
func ExamineFeeds(ctx context.Context, c Config, feeds []NATSFeed) []doctor.Finding {
	r := doctor.NewReport(FeedChecks()...)
	h, err := NewHTTP(c.WithDefaults().forFeeds())
	if err != nil {
		r.Warn(checkNATS, doctor.Run("walhook doctor"), "the check failed: %v", err)
		return r.Findings()
	}
	defer h.Close()
	options := &natsOptions{&h.config, h.dialer, &h.dialer.identities}
	var examined []examinedFeed
	for _, feed := range feeds {
		examined = append(examined, examinedFeed{feed, examineNATS(ctx, options, feed, r)})
	}
	examineShared(examined, r)
	if len(feeds) == 0 {
		r.OK(checkNATS, "no feed over NATS")
	}
	return r.Findings()
}

// examineNATS checks one feed, and returns its stream; nil where none takes all of its
// subjects.
func examineNATS(ctx context.Context, o *natsOptions, feed NATSFeed, r *doctor.Report) *jetstream.StreamInfo {
	ctx, cancel := context.WithTimeoutCause(ctx, examineNATSTimeout, errors.New("check a feed: timed out"))
	defer cancel()
	conn, err := newNATSConn(o, feed.URL)
	var session *natsSession
	if err == nil {
		defer conn.close()
		session, err = conn.await(ctx, o.config.ConnectTimeout)
	}
	if err != nil {
		class := (&natsFeeds{natsOptions: *o}).classify(ctx, err)
		r.Fail(checkNATS, doctor.Steps{{Kind: doctor.Command, Text: "walhook reasons " + string(class), Note: strings.ReplaceAll(explanations[class][1], "`", "")}},
			"feed %s: %s: %v", feed.Name, class, err)
		return nil
	}
	examineExpiry(feed, o.config.NATSCredentials, time.Now(), r)
	subjects := feed.Prefix + ".>"
	names := session.js.StreamNames(ctx, jetstream.WithStreamListSubject(subjects))
	var found []string
	for name := range names.Name() {
		found = append(found, name)
	}
	if err := names.Err(); err != nil {
		r.Fail(checkNATS, doctor.Steps{{Kind: doctor.Shell, Text: "nats account info", Note: "walhook's user needs JetStream, and publishes to $JS.API.> for this check alone"}},
			"feed %s: its servers do not say which streams there are: %v", feed.Name, err)
		return nil
	}
	if len(found) == 0 {
		replicas := 1
		if len(session.nc.Servers()) >= 3 {
			replicas = 3
		}
		r.Fail(checkNATS, doctor.Steps{{Kind: doctor.Shell, Text: addStream(feed.Prefix, replicas), Note: "choose --max-age and --max-bytes by how long its consumers may be away"}},
			"feed %s: no stream takes %s", feed.Name, subjects)
		return nil
	}
	var some *jetstream.StreamInfo // of the first that was read
	for _, name := range found {
		s, err := session.js.Stream(ctx, name)
		if err != nil {
			r.Fail(checkNATS, doctor.Steps{{Kind: doctor.Shell, Text: "nats stream info " + name}}, "feed %s: stream %s: %v", feed.Name, name, err)
			continue
		}
		if info := s.CachedInfo(); slices.ContainsFunc(info.Config.Subjects, func(s string) bool { return takesFeed(s, feed.Prefix) }) {
			examineStream(feed, info, session.nc.MaxPayload(), r)
			return info
		} else if some == nil {
			some = info
		}
	}
	if some == nil { // each has a finding of its own
		return nil
	}
	r.Fail(checkNATS, widen(some, found, feed.Prefix),
		"feed %s: stream %s takes only some of %s", feed.Name, doctor.List(found, doctor.ListMost), subjects)
	return nil
}

// widen are the steps that make one of the streams take all subjects of a feed. A server
// refuses subjects that overlap those of another stream, or each other.
func widen(info *jetstream.StreamInfo, streams []string, prefix string) (steps doctor.Steps) {
	for _, other := range streams {
		if other != info.Config.Name {
			steps = append(steps, doctor.Step{Kind: doctor.Shell, Text: "nats stream info " + other, Note: "it takes some of " + prefix + ".>: give it other subjects, or delete it, once its events are consumed"})
		}
	}
	all, note := []string{prefix + ".>"}, ""
	for _, subject := range info.Config.Subjects {
		switch {
		case !meets(subject, prefix):
			all = append(all, subject)
		case !within(subject, prefix):
			note = "without " + subject + ", which overlaps: add what else it is to take"
		}
	}
	return append(steps, doctor.Step{Kind: doctor.Shell, Text: editSubjects(info.Config.Name, all), Note: note})
}

// editSubjects is the command that gives a stream its subjects.
func editSubjects(stream string, subjects []string) string {
	return fmt.Sprintf("nats stream edit %s --subjects '%s'", stream, strings.Join(subjects, "' --subjects '"))
}

// expirySoon is how long before the credentials of a feed expire doctor warns.
const expirySoon = 7 * 24 * time.Hour

// examineExpiry warns of credentials that expire.
func examineExpiry(feed NATSFeed, all []NATSCredentials, now time.Time, r *doctor.Report) {
	login, err := readNATSLogin(credentialsFor(all, feed.URL))
	if err != nil || login.expires.IsZero() || login.expires.Sub(now) > expirySoon {
		return
	}
	r.Warn(checkNATS, doctor.Steps{{Kind: doctor.Shell, Text: "nsc generate creds", Note: "for its user, once 'nsc edit user' has given it a later expiry; senders read the file that replaces the present one without a restart"}},
		"feed %s: the credentials of its file expire on %s", feed.Name, login.expires.UTC().Format(time.RFC3339))
}

// addStream is the command that makes a stream for a feed.
func addStream(prefix string, replicas int) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '_'
	}, strings.ToUpper(prefix))
	return fmt.Sprintf("nats stream add %s --subjects '%s.>' --storage file --replicas %d --retention limits --discard new --max-age 7d --max-bytes 50GB --dupe-window 10m --defaults", name, prefix, replicas)
}

// takesFeed says whether a stream's subject matches every subject of a feed.
func takesFeed(subject, prefix string) bool {
	tokens := strings.Split(subject, ".")
	feed := append(strings.Split(prefix, "."), "", "", "") // account, schema, type: any
	for i, token := range tokens {
		switch {
		case token == ">":
			return i < len(feed)
		case i >= len(feed) || token != "*" && token != feed[i]:
			return false
		}
	}
	return len(tokens) == len(feed)
}

// examineStream checks whether a stream keeps what it acknowledges, and has limits.
func examineStream(feed NATSFeed, info *jetstream.StreamInfo, maxPayload int64, r *doctor.Report) {
	c, state := info.Config, info.State
	edit := func(flags string) doctor.Steps {
		return doctor.Steps{{Kind: doctor.Shell, Text: "nats stream edit " + c.Name + " " + flags}}
	}
	at := fmt.Sprintf("feed %s: stream %s", feed.Name, c.Name)
	limited := c.MaxBytes > 0 || c.MaxMsgs > 0
	switch {
	case c.NoAck:
		r.Fail(checkNATS, edit("--ack"), "%s acknowledges nothing, so nothing counts as delivered", at)
	case c.Sealed:
		r.Fail(checkNATS, doctor.Steps{{Kind: doctor.Shell, Text: addStream(feed.Prefix, max(c.Replicas, 1)), Note: "once the sealed stream has no subjects, or is deleted"}}, "%s is sealed and takes nothing", at)
	case c.Storage == jetstream.MemoryStorage:
		r.Warn(checkNATS, doctor.Steps{{Kind: doctor.Shell, Text: addStream(feed.Prefix, max(c.Replicas, 1)), Note: "in place of this one"}}, "%s is in memory: a restart of its servers loses what it acknowledged", at)
	}
	if c.Retention != jetstream.LimitsPolicy {
		r.Warn(checkNATS, doctor.Steps{{Kind: doctor.Shell, Text: addStream(feed.Prefix, max(c.Replicas, 1)), Note: "in place of this one"}}, "%s has the retention %s: it keeps only what a consumer has asked for, and until then", at, c.Retention)
	}
	if info.Cluster != nil && len(info.Cluster.Replicas) == 0 && c.Replicas < 2 && info.Cluster.Name != "" {
		r.Warn(checkNATS, edit("--replicas 3"), "%s has one replica in a cluster: while its server is away the feed waits, and what that server loses is lost", at)
	}
	if limited && c.Discard == jetstream.DiscardOld {
		r.Warn(checkNATS, edit("--discard new"), "%s drops its oldest events when it is full: a slow consumer misses them. With --discard new the feed waits instead", at)
	}
	if c.MaxMsgsPerSubject > 0 && !(c.Discard == jetstream.DiscardNew && c.DiscardNewPerSubject) {
		r.Warn(checkNATS, edit("--max-msgs-per-subject=-1"), "%s keeps %s of an account, schema and type, and drops the older ones, which it has acknowledged", at, doctor.Count(int(c.MaxMsgsPerSubject), "event"))
	}
	if c.MaxMsgsPerSubject > 0 && c.Discard == jetstream.DiscardNew && c.DiscardNewPerSubject {
		r.Warn(checkNATS, edit("--no-discard-per-subject --max-msgs-per-subject=-1"), "%s takes %s of an account, schema and type, and refuses the next ones until a consumer removes them (nats_subject_full)", at, doctor.Count(int(c.MaxMsgsPerSubject), "event"))
	}
	if c.MaxMsgSize > 0 && c.MaxMsgSize < leastMessage {
		r.Warn(checkNATS, edit("--max-msg-size=-1"), "%s refuses events larger than %d bytes, which become dead letters (nats_too_large)", at, c.MaxMsgSize)
	}
	if c.SubjectTransform != nil {
		r.Warn(checkNATS, doctor.Steps{{Kind: doctor.Shell, Text: addStream(feed.Prefix, max(c.Replicas, 1)), Note: "without a transform of subjects, in place of this one"}},
			"%s stores events under other subjects than %s.>", at, feed.Prefix)
	}
	if !limited && c.MaxMsgsPerSubject <= 0 && c.MaxAge == 0 {
		r.Warn(checkNATS, edit("--max-age 7d"), "%s has no limit, and fills the disks of its servers", at)
	}
	switch {
	case c.MaxAge > 0 && c.MaxAge < leastAge: // a window may not be longer than that
		r.Warn(checkNATS, edit("--max-age 7d --dupe-window 10m"), "%s drops events after %s, before a consumer that is away for longer has them, and knows an event again for no longer", at, c.MaxAge)
	case c.Duplicates < leastDuplicates:
		r.Warn(checkNATS, edit("--dupe-window 10m"), "%s knows an event again for only %s: one that walhook sends again after that is stored twice", at, c.Duplicates)
	}
	if full := share(state.Bytes, c.MaxBytes); full >= 0.9 {
		r.Warn(checkNATS, edit(fmt.Sprintf("--max-bytes %d", 2*c.MaxBytes)), "%s is %.0f %% full", at, full*100)
	}
	if full := share(state.Msgs, c.MaxMsgs); full >= 0.9 {
		r.Warn(checkNATS, edit(fmt.Sprintf("--max-msgs %d", 2*c.MaxMsgs)), "%s has %.0f %% of the messages that it may have", at, full*100)
	}
	largest := maxPayload
	if c.MaxMsgSize > 0 {
		largest = min(largest, int64(c.MaxMsgSize))
	}
	r.OK(checkNATS, "%s takes its subjects, with %s, a duplicate window of %s and at most %d bytes an event", at, doctor.Count(max(c.Replicas, 1), "replica"), c.Duplicates, largest)
}

// share is how much of a limit is used, from 0 to 1; 0 where there is none.
func share(used uint64, limit int64) float64 {
	if limit <= 0 {
		return 0
	}
	return float64(used) / float64(limit)
}
