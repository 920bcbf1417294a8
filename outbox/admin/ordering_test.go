package admin

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"walhook/outbox"
	"walhook/schemas"
)

// wantOrdering compares the ordering of an account and of each of its webhooks, as the
// senders read it.
func (f *feed) wantOrdering(t *testing.T, when, account string, want outbox.Ordering, webhooks int) {
	t.Helper()
	if got, err := f.admin.Ordering(t.Context(), account); err != nil || got != want {
		t.Errorf("%s: account %s has ordering %s, %v; want %s", when, account, got, err, want)
	}
	ids := all[int64](t, f.world, "SELECT id FROM walhook.endpoint WHERE account = $1 AND deleted_at IS NULL AND ended_at IS NULL", account)
	list, err := f.admin.store.Endpoints(t.Context(), ids)
	if err != nil || len(list) != webhooks {
		t.Fatalf("%s: account %s has %d webhooks, %v; want %d", when, account, len(list), err, webhooks)
	}
	for i := range list {
		if list[i].Ordering != want {
			t.Errorf("%s: endpoint %d of account %s has ordering %s, want %s", when, list[i].ID, account, list[i].Ordering, want)
		}
	}
}

func (f *feed) order(t *testing.T, account string, ordering outbox.Ordering, webhooks int) {
	t.Helper()
	set, err := f.admin.SetOrdering(t.Context(), account, ordering)
	if err != nil || set != (AccountOrdering{account, ordering, webhooks}) {
		t.Fatalf("set to %s: %+v, %v", ordering, set, err)
	}
}

func TestOrdering_IsThatOfEachWebhookOfTheAccount(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7), account(8))
	before := f.create(t, hook("7", "https://example.com/hook"))
	revisions := func() string {
		return fmt.Sprint(all[int64](t, f.world, "SELECT revision FROM walhook.endpoint WHERE account = '7' ORDER BY id"))
	}
	had := revisions()
	f.order(t, "7", outbox.OrderingStrict, 2)
	f.wantOrdering(t, "set", "7", outbox.OrderingStrict, 2)
	f.wantOrdering(t, "set for another account", "8", outbox.OrderingRecord, 1)
	has := revisions()
	if has == had {
		t.Error("no revision rose: senders do not learn of it")
	}
	f.order(t, "7", outbox.OrderingStrict, 2)
	if revisions() != has {
		t.Error("the ordering in force, set again, raises a revision")
	}
	f.create(t, hook("7", "https://example.com/hook"))
	f.wantOrdering(t, "a webhook made later", "7", outbox.OrderingStrict, 3)
	f.commit(t, users.Update(row(7, "n", "https://example.com/7", nil), row(7, "n", "", nil)))
	f.commit(t, users.Update(row(7, "n", "", nil), row(7, "n", "https://example.com/other", nil)))
	f.wantOrdering(t, "another URL", "7", outbox.OrderingStrict, 3)
	if _, err := f.admin.DeleteWebhook(t.Context(), Caller{}, "7", before.ID, func(*Webhook) error { return nil }); err != nil {
		t.Fatal(err)
	}
	f.order(t, "7", outbox.OrderingNone, 2)
	f.create(t, hook("7", "https://example.com/hook"))
	f.wantOrdering(t, "none", "7", outbox.OrderingNone, 3)
	f.order(t, "7", outbox.OrderingRecord, 3)
	f.create(t, hook("7", "https://example.com/hook"))
	f.wantOrdering(t, "back to the default", "7", outbox.OrderingRecord, 4)
	if acts := all[string](t, f.world, "SELECT detail FROM walhook.audit WHERE action = 'ordering changed' AND account = '7' ORDER BY id"); fmt.Sprint(acts) != "[strict none record]" {
		t.Errorf("the audit has %v", acts)
	}
}

// An account that only has webhooks of the API has an ordering, too, and so has one that
// has none yet.
func TestOrdering_NeedsNoURLOfTheAccountsOwn(t *testing.T) {
	f := newFeed(t)
	f.snapshot(t, 0x9000, load(t, map[string]string{"7": "", "8": ""}))
	f.takeOver(t)
	f.commitLSN = 0x9000
	f.wantOrdering(t, "at first", "7", outbox.OrderingRecord, 0)
	f.order(t, "7", outbox.OrderingStrict, 0)
	f.create(t, hook("7", "https://example.com/hook"))
	f.wantOrdering(t, "a webhook made later", "7", outbox.OrderingStrict, 1)
	f.commit(t, users.Update(row(7, "n", "", nil), row(7, "n", "https://example.com/7", nil)))
	f.wantOrdering(t, "a URL set later", "7", outbox.OrderingStrict, 2)

	f.create(t, hook("8", "https://example.com/hook"))
	f.order(t, "8", outbox.OrderingNone, 1)
	f.snapshot(t, 0xa000, load(t, map[string]string{"8": "https://example.com/8"}))
	f.takeOver(t)
	f.commitLSN = 0xa000
	f.wantOrdering(t, "a URL set before a snapshot", "8", outbox.OrderingNone, 2)
	if n := f.Count(t, "account_ordering"); n != 1 {
		t.Errorf("%d accounts have an ordering, want that of 8 alone: 7 is gone", n)
	}
	for _, nobody := range []string{"9", outbox.NoAccount} {
		if _, err := f.admin.SetOrdering(t.Context(), nobody, outbox.OrderingStrict); !errors.Is(err, ErrNoEndpoint) {
			t.Errorf("account %q, which the source does not have: %v", nobody, err)
		}
	}
}

// The operator's feeds are nobody's webhooks.
func TestOrdering_IsNoneOfAFeed(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	if _, err := f.admin.AddFeed(t.Context(), natsFeed("ops", "nats://a.example", "ops")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.admin.SetOrdering(t.Context(), outbox.NoAccount, outbox.OrderingStrict); !errors.Is(err, ErrNoEndpoint) {
		t.Errorf("the feeds' ordering is set: %v", err)
	}
	f.order(t, "7", outbox.OrderingStrict, 1)
	if got := all[string](t, f.world, "SELECT ordering FROM walhook.endpoint WHERE account = ''"); fmt.Sprint(got) != "[record]" {
		t.Errorf("the feed has ordering %v", got)
	}
}

func TestOrdering_EndsWithItsAccount(t *testing.T) {
	for name, commits := range map[string][][]schemas.Change{
		"later":              {{users.Delete(7, "n", "", nil)}, {users.Insert(7, "n", "", nil)}},
		"in one transaction": {{users.Delete(7, "n", "", nil), users.Insert(7, "n", "", nil)}},
		"with an URL":        {{users.Delete(7, "n", "", nil), account(7)}},
		"after a TRUNCATE":   {{users.Truncate()}, {users.Insert(7, "n", "", nil)}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFeed(t)
			f.commit(t, users.Insert(7, "n", "", nil))
			f.create(t, hook("7", "https://example.com/hook"))
			f.order(t, "7", outbox.OrderingStrict, 1)
			if name == "after a TRUNCATE" {
				f.commit(t, users.Insert(8, "n", "", nil)) // has no webhook
				f.order(t, "8", outbox.OrderingStrict, 0)
			}
			for i, changes := range commits {
				f.commit(t, changes...)
				if len(commits) > 1 && i == 0 {
					if _, err := f.admin.SetOrdering(t.Context(), "7", outbox.OrderingNone); !errors.Is(err, ErrAccountEnded) {
						t.Errorf("of an account that ended: %v", err)
					}
					if n := f.Count(t, "account_ordering"); n != 0 {
						t.Errorf("%d orderings are left", n)
					}
					f.Exec(t, "INSERT INTO walhook.account_ordering VALUES ('7', 'strict')") // as an older publisher leaves it
				}
			}
			f.create(t, hook("7", "https://example.com/hook"))
			f.commit(t, users.Update(row(7, "n", "", nil), row(7, "n", "https://example.com/7", nil)))
			f.wantOrdering(t, "the next account of that id", "7", outbox.OrderingRecord, 2)
		})
	}
}

func TestOrdering_SetToNoneReleasesWhatWaitsForAWebhookOfTheAPI(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	w := f.create(t, hook("7", "https://example.com/hook"))
	f.Exec(t, `INSERT INTO walhook.retry (endpoint, event_id, record, attempts, next_at, reason) VALUES ($1, 1, 'dids:1', 1, $2, '5xx'), ($1, 2, 'dids:1', 0, NULL, '')`,
		w.Endpoint, time.Now().Add(time.Hour))
	f.order(t, "7", outbox.OrderingNone, 2)
	if due := all[int64](t, f.world, "SELECT event_id FROM walhook.retry WHERE next_at <= clock_timestamp()"); fmt.Sprint(due) != "[2]" {
		t.Errorf("due are %v", due)
	}
}
