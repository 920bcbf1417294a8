package outbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"walhook/outbox/route"
)

// hooks is a feed whose accounts 1 to n have a webhook each, and no URL of their own.
func hooks(t *testing.T, n int) *feed {
	t.Helper()
	f := newFeed(t)
	f.exec(t, `INSERT INTO walhook.endpoint (account, webhook, url, state, secret)
		SELECT n::text, 'hook', 'https://example.com/', 'active', 'whsec_eA==' FROM generate_series(1, $1) n`, n)
	f.touch(t)
	f.next(t)
	return f
}

// edit changes the webhook of an account as the API does.
func (f *feed) edit(t *testing.T, account, set string) {
	t.Helper()
	tx := f.begin(t)
	execTx(t, tx, RaiseWebhooksSQL)
	execTx(t, tx, "UPDATE walhook.endpoint SET "+set+", "+ChangedInSQL+", revision = revision + 1 WHERE account = $1 AND webhook = 'hook'", account)
	commit(t, tx)
}

// next is an append that concerns no account.
func (f *feed) next(t *testing.T) { t.Helper(); f.commit(t, ghosts.Insert(1)) }

const deleted = "deleted_at = clock_timestamp() - interval '1 year', state = 'cleared', url = NULL, reason = 'deleted'"

// read is how many webhooks the publisher has read so far.
func (f *feed) read(t *testing.T) int {
	t.Helper()
	var m dto.Metric
	if err := f.store.metrics.webhooks.Write(&m); err != nil {
		t.Fatal(err)
	}
	return int(m.GetCounter().GetValue())
}

// notified are the accounts whose webhooks get a change of each account's own.
func (f *feed) notified(t *testing.T, accounts ...int) []string {
	t.Helper()
	f.forget(t)
	for _, account := range accounts {
		f.commit(t, dids.Insert(1000+account, account, "n"))
	}
	return all[string](t, f.world, "SELECT coalesce(p.account, 'removed') FROM walhook.event e LEFT JOIN walhook.endpoint p ON p.id = e.endpoint ORDER BY e.id")
}

func TestWebhooks_AnEditReadsOneRow(t *testing.T) {
	f := hooks(t, 50)
	for _, c := range []struct {
		name   string
		change func()
		want   int
	}{
		{"nothing", func() {}, 0},
		{"an edit", func() { f.edit(t, "7", "types = '{delete}'") }, 1},
		{"three edits", func() {
			for _, account := range []string{"8", "9", "10"} {
				f.edit(t, account, "types = '{delete}'")
			}
		}, 3},
		{"two edits of one", func() { f.edit(t, "7", "types = '{}'"); f.edit(t, "7", "types = '{update}'") }, 1},
		{"a deletion", func() { f.edit(t, "8", deleted) }, 1},
		{"an account that ends", func() { f.commit(t, users.Delete(9, "n", nil, nil)) }, 1},
		{"an account that begins again", func() { f.commit(t, users.Insert(9, "n", nil, nil)) }, 1},
		{"an edit of an older process", func() { f.exec(t, "UPDATE walhook.endpoint SET types = '{}' WHERE account = '7'"); f.touch(t) }, 48},
		{"an edit after it", func() { f.edit(t, "7", "types = '{delete}'") }, 1},
	} {
		before := f.read(t)
		c.change()
		f.next(t)
		if got := f.read(t) - before; got != c.want {
			t.Errorf("%s: the publisher read %d webhooks, want %d", c.name, got, c.want)
		}
		before = f.read(t)
		f.next(t)
		if got := f.read(t) - before; got != 0 {
			t.Errorf("%s: the append after it read %d webhooks", c.name, got)
		}
	}
	wantLines(t, f.notified(t, 6, 7, 8, 9, 10, 11), "6", "11")
}

// A process that is older than stamps raises the version alone.
func TestWebhooks_AnEditWithoutAStampIsSeen(t *testing.T) {
	f := hooks(t, 5)
	f.edit(t, "1", "types = '{delete}'")
	f.exec(t, "UPDATE walhook.endpoint SET types = '{delete}' WHERE account = '2'")
	f.touch(t)
	f.edit(t, "3", "types = '{delete}'")
	wantLines(t, f.notified(t, 1, 2, 3, 4), "4")
	f.exec(t, "UPDATE walhook.endpoint SET types = '{}'")
	f.touch(t)
	wantLines(t, f.notified(t, 1, 2, 3, 4), "1", "2", "3", "4")
}

// Maintenance removes what was deleted long ago, also what a publisher that slept
// has not seen deleted.
func TestWebhooks_ARemovedOneIsNoticed(t *testing.T) {
	f := hooks(t, 3)
	f.edit(t, "2", deleted)
	f.exec(t, markForgottenSQL, time.Hour)
	f.exec(t, forgetWebhooksSQL, time.Hour)
	if n := f.count(t, "endpoint"); n != 2 {
		t.Fatalf("%d endpoints are left", n)
	}
	wantLines(t, f.notified(t, 1, 2, 3), "1", "3")
	before := f.read(t)
	f.edit(t, "3", deleted)
	f.next(t)
	f.exec(t, markForgottenSQL, time.Hour)
	f.exec(t, forgetWebhooksSQL, time.Hour)
	f.edit(t, "1", "types = '{insert}'")
	wantLines(t, f.notified(t, 1, 2, 3), "1")
	if got := f.read(t) - before; got != 2 {
		t.Errorf("%d webhooks were read for two edits, both followed before the rows went", got)
	}
}

// A row that maintenance could not mark stays: the mark is committed first.
func TestWebhooks_OneIsRemovedOnlyOnceItIsMarked(t *testing.T) {
	f := hooks(t, 3)
	f.exec(t, markForgottenSQL, time.Hour)
	f.edit(t, "2", deleted)
	f.exec(t, forgetWebhooksSQL, time.Hour)
	if n := f.count(t, "endpoint"); n != 3 {
		t.Errorf("%d endpoints are left", n)
	}
}

func TestWebhooks_ADamagedOneLeavesAloneAndComesBack(t *testing.T) {
	f := hooks(t, 4)
	f.edit(t, "2", "schemas = '{NULL}'")
	f.edit(t, "3", "types = '{delete}'")
	wantLines(t, f.notified(t, 1, 2, 3, 4), "1", "4")
	f.wantAside(t, loopWebhooks, asideUnreadable)
	before := f.read(t)
	f.edit(t, "2", "schemas = '{}'")
	wantLines(t, f.notified(t, 1, 2, 3, 4), "1", "2", "4")
	if got := f.read(t) - before; got != 1 || f.count(t, "set_aside") != 0 {
		t.Errorf("%d webhooks were read, %d are set aside", got, f.count(t, "set_aside"))
	}
	// Mended by whatever stamps nothing: it is looked at with a later edit.
	f.edit(t, "2", "schemas = '{NULL}'")
	wantLines(t, f.notified(t, 1, 2, 4), "1", "4")
	f.exec(t, "UPDATE walhook.endpoint SET schemas = '{}' WHERE account = '2'")
	f.publisher.lookedAgain = time.Time{}
	f.edit(t, "4", "types = '{insert}'")
	wantLines(t, f.notified(t, 1, 2, 4), "1", "2", "4")
}

// Where more changed than is followed row by row, all are read.
func TestWebhooks_ManyEditsReadThemAll(t *testing.T) {
	f := hooks(t, 2)
	tx := f.begin(t)
	execTx(t, tx, RaiseWebhooksSQL)
	execTx(t, tx, `INSERT INTO walhook.endpoint (account, webhook, url, state, secret, changed_in)
		SELECT n::text, 'hook', 'https://example.com/', 'active', 'whsec_eA==', (SELECT version FROM walhook.webhooks_version)
		FROM generate_series(3, $1 + 3) n`, mostFollowed)
	commit(t, tx)
	wantLines(t, f.notified(t, 1, 3, mostFollowed+3), "1", "3", fmt.Sprint(mostFollowed+3))
}

// What the publisher knows after each append is what a full read says, whatever was
// edited in between: of webhooks with daily delivery too.
func TestWebhooks_FollowedIsAsIfAllWereRead(t *testing.T) {
	d := newDays(t, "2026-03-01T10:00:00Z")
	const n = 12
	d.exec(t, `INSERT INTO walhook.endpoint (account, webhook, url, state, secret)
		SELECT (n % 4)::text, 'hook' || n, 'https://example.com/', 'active', 'whsec_eA==' FROM generate_series(1, $1) n`, n)
	d.touch(t)
	sets := []string{
		"hook = 'all'", "hook = 'records'", "hook = 'object', object_type = 'dids'", "delivery = 'daily'", "delivery = 'daily', daily_at = '06:00', daily_zone = 'Asia/Kolkata'",
		"delivery = 'realtime'", "types = '{insert}'", "types = '{}'", "include_subaccounts = NOT include_subaccounts", "target = 'number', target_id = '312'", "target = '', target_id = ''",
		deleted,
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for round := range 40 {
		for range random.IntN(4) {
			tx := d.begin(t)
			execTx(t, tx, RaiseWebhooksSQL)
			execTx(t, tx, "UPDATE walhook.endpoint SET "+sets[random.IntN(len(sets))]+", "+ChangedInSQL+" WHERE deleted_at IS NULL AND id % 13 = $1", random.IntN(13))
			if random.IntN(3) == 0 {
				execTx(t, tx, `INSERT INTO walhook.endpoint (account, webhook, url, state, secret, changed_in)
					SELECT $1, 'new' || version, 'https://example.com/', 'active', 'whsec_eA==', version FROM walhook.webhooks_version`, fmt.Sprint(random.IntN(4)))
			}
			commit(t, tx)
		}
		if random.IntN(5) == 0 {
			d.now = d.now.Add(7 * time.Hour)
		}
		d.next(t)
		full := newPublisherOf(t, d.world, d.catalog)
		full.clock, full.epoch, full.view = d.publisher.clock, d.publisher.epoch, route.NewView(full.catalog)
		if err := full.loadWebhooks(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := described(d.publisher.view, d.now), described(full.view, d.now); !slices.Equal(got, want) {
			t.Fatalf("round %d: the publisher follows\n\t%s\nand a full read says\n\t%s", round, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
	}
}

// described is what a view holds of webhooks, a line each, and which days it ends.
func described(v *route.View, now time.Time) (lines []string) {
	for account, list := range v.Webhooks {
		for at, w := range list {
			lines = append(lines, fmt.Sprintf("%s %d: %d %d %+v", account, at, w.ID, w.Revision, *w.Subscription))
		}
	}
	for _, e := range route.EndDays(v, now.AddDate(0, 0, 3)).DayEnds {
		lines = append(lines, fmt.Sprintf("%d ends %s, from %d to %d in %s", e.Endpoint, e.Day, e.Began.Unix(), e.Ended.Unix(), e.Zone))
	}
	slices.Sort(lines)
	for _, schema := range v.Catalog.Schemas {
		lines = append(lines, fmt.Sprint(schema.Name, v.Derives(schema)))
	}
	return lines
}

// An edit that commits between the two reads of a follower is not passed over: the
// version is read before the rows.
func TestWebhooks_TheVersionIsReadBeforeTheRows(t *testing.T) {
	f := hooks(t, 2)
	tx := f.begin(t)
	execTx(t, tx, "LOCK TABLE walhook.webhooks_version IN ACCESS EXCLUSIVE MODE")
	execTx(t, tx, RaiseWebhooksSQL)
	execTx(t, tx, "UPDATE walhook.endpoint SET types = '{delete}', "+ChangedInSQL+" WHERE account = '1'")
	appended := make(chan error, 1)
	go func() { appended <- f.publisher.Append(t.Context(), batch(f.tx(ghosts.Insert(1)))) }()
	f.blocked(t, "webhooks_version")
	commit(t, tx)
	if err := <-appended; err != nil {
		t.Fatal(err)
	}
	wantLines(t, f.notified(t, 1, 2), "2")
}
