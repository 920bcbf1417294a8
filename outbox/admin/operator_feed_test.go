package admin

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"walhook/outbox"
	"walhook/outbox/storetest"
)

func natsFeed(name, url, prefix string) Webhook {
	return Webhook{Name: name, URL: url, SubjectPrefix: prefix, Hook: HookRecords}
}

// A feed that would publish what another one publishes, on the same subjects, is refused;
// where servers or prefixes only may lead to one stream, there is a warning.
func TestFeeds_ThatWouldShareAStream(t *testing.T) {
	const servers = "nats://a.example:4222,b.example"
	of := func(w Webhook, schemas, types []string, hook string) Webhook {
		w.Schemas, w.Types, w.Hook = schemas, types, hook
		return w
	}
	for what, c := range map[string]struct {
		feed, other    Webhook
		refused, warns bool
	}{
		"the same":                   {natsFeed("n", servers, "walhook"), natsFeed("o", servers, "walhook"), true, true},
		"one server in common":       {natsFeed("n", "tls://c.example,b.example:4222", "walhook"), natsFeed("o", servers, "walhook"), true, true},
		"another port":               {natsFeed("n", "nats://a.example:4223", "walhook"), natsFeed("o", servers, "walhook"), false, true},
		"other servers":              {natsFeed("n", "nats://c.example", "walhook"), natsFeed("o", servers, "walhook"), false, true},
		"another prefix":             {natsFeed("n", servers, "crm"), natsFeed("o", servers, "walhook"), false, false},
		"a prefix that begins alike": {natsFeed("n", servers, "walhook2"), natsFeed("o", servers, "walhook"), false, false},
		"a prefix within":            {natsFeed("n", servers, "walhook.crm"), natsFeed("o", servers, "walhook"), false, true},
		"a prefix around":            {natsFeed("n", servers, "walhook"), natsFeed("o", servers, "walhook.crm"), false, true},
		"other schemas":              {of(natsFeed("n", servers, "walhook"), []string{"dids"}, nil, HookRecords), of(natsFeed("o", servers, "walhook"), []string{"users", "e911"}, nil, HookAll), false, false},
		"a schema in common":         {of(natsFeed("n", servers, "walhook"), []string{"dids", "users"}, nil, HookRecords), of(natsFeed("o", servers, "walhook"), []string{"users"}, nil, HookRecords), true, true},
		"other types":                {of(natsFeed("n", servers, "walhook"), nil, []string{"insert"}, HookRecords), of(natsFeed("o", servers, "walhook"), nil, []string{"delete"}, HookRecords), false, false},
		"other events of both":       {of(natsFeed("n", servers, "walhook"), []string{"dids"}, nil, HookAll), of(natsFeed("o", servers, "walhook"), []string{"users"}, nil, HookAll), true, true},
		"over HTTP":                  {Webhook{Name: "n", URL: "https://a.example", Hook: HookRecords}, natsFeed("o", servers, "walhook"), false, false},
	} {
		c.feed.ID, c.other.ID = "1", "2"
		if err := checkStream(nil, &c.feed, []Webhook{c.other}); (err != nil) != c.refused {
			t.Errorf("%s: %v, refused is %v", what, err, c.refused)
		}
		if err := checkStream(&c.feed, &c.feed, []Webhook{c.other}); err != nil {
			t.Errorf("%s: a change of something else: %v", what, err)
		}
		if got := StreamWarnings(&c.feed, []OperatorFeed{{Webhook: c.other}, {Webhook: c.feed}}); (len(got) == 1) != c.warns || len(got) > 1 {
			t.Errorf("%s: warnings %q, wanted is %v", what, got, c.warns)
		}
	}
}

// Of two that add or change feeds at the same moment, each on connections of its own, one is
// refused where both would publish the same events to one stream.
func TestFeeds_OfTwoAtTheSameMomentOneIsRefused(t *testing.T) {
	f := newFeed(t)
	second, err := outbox.Open(t.Context(), outbox.Config{URL: f.DB.URL}, f.Log(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.Close)
	admins := [2]*Admin{f.admin, New(second)}
	add := func(a *Admin, name, prefix string) error {
		_, err := a.AddFeed(t.Context(), natsFeed(name, "nats://a.example", prefix))
		return err
	}
	move := func(a *Admin, name, prefix string) error {
		_, err := a.ChangeFeed(t.Context(), name, func(w *Webhook) error { w.SubjectPrefix = prefix; return nil })
		return err
	}
	for n, moves := range [][2]bool{{false, false}, {true, true}, {false, true}} {
		prefix := fmt.Sprint("walhook", n)
		var names [2]string
		does := [2]func(*Admin, string, string) error{add, add}
		for i := range names {
			names[i] = fmt.Sprintf("feed%d-%d", n, i)
			if moves[i] {
				does[i] = move
				if err := add(f.admin, names[i], names[i]); err != nil {
					t.Fatal(err)
				}
			}
		}
		// Both come as far as another transaction that changes webhooks lets them.
		tx := f.Begin(t)
		storetest.ExecTx(t, tx, outbox.RaiseWebhooksSQL)
		ended := make(chan error, 2)
		for i := range does {
			go func() { ended <- does[i](admins[i], names[i], prefix) }()
		}
		storetest.Eventually(t, "two that wait", func() bool {
			if len(ended) > 0 {
				t.Fatal(<-ended)
			}
			return storetest.One[int](t, f.World, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query = $1", outbox.RaiseWebhooksSQL) == 2
		})
		storetest.Commit(t, tx)
		refused := 0
		for range does {
			if err := <-ended; isFault(err) && strings.Contains(err.Error(), "publishes the same events") {
				refused++
			} else if err != nil {
				t.Errorf("%d: %v", n, err)
			}
		}
		if refused != 1 {
			t.Errorf("%d: %d of two are refused, want one", n, refused)
		}
	}
}

// What an operator does with a feed is in the audit under the feed's name.
func TestFeeds_AreAudited(t *testing.T) {
	f := newFeed(t)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := f.admin.AddFeed(ctx, natsFeed("billing", "nats://a.example", "walhook"))
	must(err)
	if _, err := f.admin.AddFeed(ctx, natsFeed("crm", "nats://a.example", "walhook")); !isFault(err) || !strings.Contains(err.Error(), "feed billing publishes the same events") {
		t.Errorf("a second feed of the same subjects: %v", err)
	}
	_, err = f.admin.AddFeed(ctx, natsFeed("crm", "nats://a.example", "crm"))
	must(err)
	if _, err := f.admin.ChangeFeed(ctx, "crm", func(w *Webhook) error { w.SubjectPrefix = "walhook"; return nil }); !isFault(err) {
		t.Errorf("changed to the same subjects: %v", err)
	}
	_, err = f.admin.ChangeFeed(ctx, "billing", func(w *Webhook) error { w.SubjectPrefix = "billing"; return nil })
	must(err)
	_, err = f.admin.DisableFeed(ctx, "billing", "it moves")
	must(err)
	_, err = f.admin.EnableFeed(ctx, "billing")
	must(err)
	secrets, err := f.admin.FeedSecrets(ctx, "billing")
	must(err)
	if len(secrets) != 1 || !strings.HasPrefix(secrets[0], "whsec_") {
		t.Errorf("%d secrets", len(secrets))
	}
	must(f.admin.RemoveFeed(ctx, "billing"))
	acts, err := f.admin.Acts(ctx, ActFilter{}, nil, 20)
	must(err)
	var got []string
	for i := len(acts) - 1; i >= 0; i-- {
		if acts[i].Webhook == "" {
			t.Errorf("%+v has no webhook", acts[i])
		}
		got = append(got, fmt.Sprintf("%s, %s", acts[i].Action, acts[i].Detail))
	}
	const want = "feed added, feed: billing\nfeed added, feed: crm\nfeed changed, feed: billing\nfeed disabled, feed: billing; reason: it moves\n" +
		"feed enabled, feed: billing\nsecret read, feed: billing\nfeed removed, feed: billing"
	if strings.Join(got, "\n") != want {
		t.Errorf("the audit:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
	}
}

func isFault(err error) bool {
	_, is := errors.AsType[*FeedFault](err)
	return is
}
