package deliver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"walhook/doctor"
	"walhook/outbox"
)

func TestNATSSubject_HasFourTokensWhateverTheTextsAre(t *testing.T) {
	for _, c := range []struct{ prefix, account, schema, typ, want string }{
		{"walhook", "7", "dids", "update", "walhook.7.dids.update"},
		{"carrier.walhook", "a-b_c", "numbers_eu", "insert", "carrier.walhook.a-b_c.numbers_eu.insert"},
		{"walhook", "a.b", "*", ">", "walhook.a%2Eb.%2A.%3E"},
		{"walhook", "a b\tc\n", "%2E", "", "walhook.a%20b%09c%0A.%252E.%00"},
		{"walhook", "müller", "日本", "x", "walhook.müller.日本.x"},
		{"walhook", "a\u0085b\u00a0c", "\u3000\ufeff", "\u202e", "walhook.a%C2%85b%C2%A0c.%E3%80%80%EF%BB%BF.%E2%80%AE"},
	} {
		got := natsSubject(&outbox.Endpoint{SubjectPrefix: c.prefix}, &outbox.Event{Account: c.account, Schema: c.schema, Type: c.typ})
		if got != c.want {
			t.Errorf("%+v is published on %q", c, got)
		}
		if !takesFeed(c.prefix+".>", c.prefix) || strings.Count(got, ".") != strings.Count(c.prefix, ".")+3 {
			t.Errorf("%q has other tokens", got)
		}
	}
}

func TestNATSDoctor_KnowsWhetherAStreamTakesAFeed(t *testing.T) {
	for subject, want := range map[string]bool{
		">": true, "walhook.>": true, "*.>": true, "walhook.*.*.*": true, "walhook.*.*.>": true, "walhook.*.>": true,
		"walhook.*.*": false, "walhook.*.*.*.*": false, "walhook.7.>": false, "walhook": false, "other.>": false, "walhook.*.dids.*": false, "walhook.*.*.*.>": false,
	} {
		if takesFeed(subject, "walhook") != want {
			t.Errorf("a stream of %s takes the feed: %v", subject, !want)
		}
	}
}

func TestNATSDoctor_NamesWhatAStreamWouldLose(t *testing.T) {
	good := jetstream.StreamConfig{Name: "W", Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, MaxAge: time.Hour, MaxBytes: 1000, Duplicates: 10 * time.Minute}
	for what, c := range map[string]struct {
		change func(*jetstream.StreamInfo)
		want   string // of the first step; "" for none
	}{
		"nothing":              {func(*jetstream.StreamInfo) {}, ""},
		"one of each subject":  {func(s *jetstream.StreamInfo) { s.Config.MaxMsgsPerSubject = 1 }, "--max-msgs-per-subject=-1"},
		"refuses more of each": {func(s *jetstream.StreamInfo) { s.Config.MaxMsgsPerSubject, s.Config.DiscardNewPerSubject = 1, true }, "--no-discard-per-subject --max-msgs-per-subject=-1"},
		"tiny events":          {func(s *jetstream.StreamInfo) { s.Config.MaxMsgSize = 50 }, "--max-msg-size=-1"},
		"large events":         {func(s *jetstream.StreamInfo) { s.Config.MaxMsgSize = 1 << 20 }, ""},
		"a short window":       {func(s *jetstream.StreamInfo) { s.Config.Duplicates = time.Second }, "--dupe-window 10m"},
		"a short age":          {func(s *jetstream.StreamInfo) { s.Config.MaxAge, s.Config.Duplicates = 2*time.Second, 2*time.Second }, "--max-age 7d --dupe-window 10m"},
		"an age of minutes":    {func(s *jetstream.StreamInfo) { s.Config.MaxAge = 5 * time.Minute }, "--max-age 7d --dupe-window 10m"},
		"drops the oldest":     {func(s *jetstream.StreamInfo) { s.Config.Discard = jetstream.DiscardOld }, "--discard new"},
		"other subjects":       {func(s *jetstream.StreamInfo) { s.Config.SubjectTransform = &jetstream.SubjectTransformConfig{} }, "nats stream add"},
		"full of messages":     {func(s *jetstream.StreamInfo) { s.Config.MaxMsgs, s.State.Msgs = 50, 50 }, "--max-msgs 100"},
		"full of bytes":        {func(s *jetstream.StreamInfo) { s.State.Bytes = 950 }, "--max-bytes 2000"},
	} {
		info := &jetstream.StreamInfo{Config: good}
		c.change(info)
		r := doctor.NewReport(checkNATS)
		examineStream(NATSFeed{Name: "f", Prefix: "walhook"}, info, 1<<20, r)
		got := ""
		if f := r.Findings()[0]; f.Bad() && len(f.Fix) > 0 {
			got = f.Fix[0].Text
		}
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: the step is %q, want %q", what, got, c.want)
		}
	}
}

func TestNATSFailure_HasItsName(t *testing.T) {
	api := func(code jetstream.ErrorCode) error {
		return fmt.Errorf("publish: %w", &jetstream.APIError{ErrorCode: code})
	}
	for want, errs := range map[failure][]error{
		failNATSFull:        {api(10077), api(10047), api(10002), api(10028)},
		failNATSTooLarge:    {api(10054), nats.ErrMaxPayload},
		failNATSNoStream:    {jetstream.ErrNoStreamResponse, nats.ErrNoResponders, api(10039), api(10076)},
		failNATSNoSubject:   {fmt.Errorf("%w: walhook.7.users.insert", errNATSUntaken)},
		failNATSRejected:    {api(10071), api(10109), jetstream.ErrInvalidJSAck},
		failNATSPermission:  {fmt.Errorf("%w: Permissions Violation for Publish to %q", nats.ErrPermissionViolation, "walhook.7.dids.insert")},
		failNATSTimeout:     {nats.ErrTimeout, jetstream.ErrAsyncPublishTimeout},
		failNATSRefused:     {nats.ErrAuthorization, nats.ErrAuthRevoked, nats.ErrAuthExpired, nats.ErrAccountAuthExpired, nats.ErrNkeysNotSupported},
		failNATSTLS:         {&tls.CertificateVerificationError{Err: errors.New("x")}, nats.ErrSecureConnRequired, fmt.Errorf("read: %w", &net.OpError{Op: "remote error", Err: tls.AlertError(42)}), errNATSTLS},
		failNATSInbox:       {fmt.Errorf("%w (%w)", errNATSInbox, nats.ErrPermissionViolation)},
		failNATSCredentials: {fmt.Errorf("connect: %w", errCredentials)},
		failNATSSubjectFull: {&jetstream.APIError{ErrorCode: 10077, Description: "maximum messages per subject exceeded"}},
		failNATSDown:        {nats.ErrDisconnected, nats.ErrNoServers, nats.ErrReconnectBufExceeded, nats.ErrStaleConnection, errNATSConnecting, errNATSLeft, errNATSRotated},
		failBlocked:         {&BlockedAddressError{"192.0.2.1"}},
	} {
		for _, err := range errs {
			if got := classifyNATS(err); got != want {
				t.Errorf("%v is %s, want %s", err, got, want)
			}
		}
	}
}

func TestNATSCredentials_AreReadFromAFileAndNeverShown(t *testing.T) {
	folder := t.TempDir()
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	notAUser, err := account.Seed()
	if err != nil {
		t.Fatal(err)
	}
	for text, ok := range map[string]bool{"walhook:right\n": true, "atoken": true, "": false, "one\ntwo": false, "-----BEGIN NATS USER JWT-----\nx": false, string(seed) + "\n": true, string(notAUser): false, "-----BEGIN USER NKEY SEED-----\n" + string(notAUser): false, "SU" + strings.Repeat("A", 56): false} {
		file := filepath.Join(folder, "login")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := (&NATSCredentials{File: file}).Check()
		if (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && (!errors.Is(err, errCredentials) || text != "" && strings.Contains(err.Error(), text)) {
			t.Errorf("%q: %v", text, err)
		}
	}
	all := []NATSCredentials{{File: "any"}, {Host: "NATS-1.internal", File: "one"}}
	for servers, want := range map[string]string{"nats://nats-1.internal:4222": "one", "nats://nats-2.internal,nats-1.internal": "one", "nats://nats-2.internal": "any"} {
		if got := credentialsFor(all, servers); got != want {
			t.Errorf("%s signs in with %q, want %q", servers, got, want)
		}
	}
}

func TestFeedHeader_HasNoCharacterThatEndsIt(t *testing.T) {
	for id, want := range map[string]string{"7": "7", "a b": "a%20b", "a\r\nx: y": "a%0D%0Ax:%20y", "50%": "50%25", "ü": "%C3%BC"} {
		if got := headerText(id); got != want {
			t.Errorf("%q is sent as %q, want %q", id, got, want)
		}
	}
}
