package admin

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"walhook/outbox"
	"walhook/schemas"
)

// editors change the webhooks of accounts at random and at the same time, by every
// method that does.
type editors struct {
	*feed
	accounts int
}

// editedURLs are on several hosts, since disabling a webhook holds its host.
var editedURLs = []string{urlA, urlB, "https://other.example.net/", "https://held.example.org/"}

func (e *editors) edit(t *testing.T, random *rand.Rand) {
	account := fmt.Sprint(1 + random.IntN(e.accounts))
	list, err := e.admin.Webhooks(t.Context(), account, 0, 20)
	if err != nil {
		t.Error(err)
		return
	}
	list = slices.DeleteFunc(list, func(w Webhook) bool { return w.ID == "account" })
	if len(list) == 0 || random.IntN(4) == 0 {
		w := hook(account, editedURLs[random.IntN(len(editedURLs))])
		w.Enabled = random.IntN(4) > 0
		w.Schemas = [][]string{nil, {"dids"}, {"faxes"}}[random.IntN(3)]
		_, err = e.admin.CreateWebhook(t.Context(), w, Once{}, nil)
		e.refused(t, err)
		return
	}
	w := list[random.IntN(len(list))]
	switch random.IntN(10) {
	case 0, 1:
		_, err = e.admin.DeleteWebhook(t.Context(), Caller{}, account, w.ID, func(*Webhook) error { return nil })
	case 2:
		_, err = e.admin.DisableEndpoint(t.Context(), account, w.ID, "by the test")
	case 3, 4:
		_, err = e.admin.EnableEndpoint(t.Context(), account, w.ID)
	default:
		_, err = e.admin.EditWebhook(t.Context(), Caller{}, account, w.ID, func(w *Webhook) error {
			switch random.IntN(4) {
			case 0:
				w.Schemas = [][]string{nil, {"dids"}, {"faxes"}}[random.IntN(3)]
			case 1:
				w.Types = [][]string{nil, {"insert"}, {"delete"}}[random.IntN(3)]
			case 2:
				w.Hook = []string{HookRecords, "missed_call"}[random.IntN(2)]
			case 3:
				w.URL = editedURLs[random.IntN(len(editedURLs))]
			}
			return nil
		})
	}
	e.refused(t, err)
}

// refused lets pass what the other edits of the test explain.
func (e *editors) refused(t *testing.T, err error) {
	_, state := errors.AsType[*StateError](err)
	_, held := errors.AsType[*outbox.HeldError](err)
	if err != nil && !state && !held && !errors.Is(err, ErrNoWebhook) && !errors.Is(err, ErrNoEndpoint) && !errors.Is(err, ErrAccountEnded) {
		t.Error(err)
	}
}

// wantTheirs checks that a change of each account reaches its webhooks as they stand.
func (e *editors) wantTheirs(t *testing.T) {
	t.Helper()
	e.forget(t)
	var changes []schemas.Change
	for account := range e.accounts {
		changes = append(changes, dids.Insert(1000+account, 1+account, "n"))
	}
	e.commit(t, changes...)
	const told = `SELECT format('%s %s', p.account, p.id) FROM walhook.event e JOIN walhook.endpoint p ON p.id = e.endpoint ORDER BY p.id`
	const theirs = `
		SELECT format('%s %s', account, id) FROM walhook.endpoint
		WHERE webhook <> 'account' AND state <> 'cleared' AND deleted_at IS NULL AND ended_at IS NULL AND hook = 'records'
			AND (schemas = '{}' OR 'dids' = ANY (schemas)) AND (types = '{}' OR 'insert' = ANY (types)) ORDER BY id`
	if got, want := all[string](t, e.world, told), all[string](t, e.world, theirs); !slices.Equal(got, want) {
		t.Fatalf("events for\n\t%s\nwant them for\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// What an editor was answered holds for the next append, however many edit at a time,
// beside appends, and while accounts end and begin.
func TestWebhooks_TheNextAppendFollowsEveryEdit(t *testing.T) {
	e := &editors{feed: newFeed(t), accounts: 6}
	for account := range e.accounts {
		e.commit(t, users.Insert(1+account, "n", nil, nil))
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range uint64(15) {
		var running sync.WaitGroup
		for editor := range uint64(3) {
			running.Go(func() {
				random := rand.New(rand.NewPCG(seed, round<<8|editor))
				for range 3 {
					e.edit(t, random)
				}
			})
		}
		random := rand.New(rand.NewPCG(seed, round<<8|0xff))
		account := 1 + random.IntN(e.accounts)
		for n := range 2 {
			e.commit(t, dids.Insert(n, account, "n"))
		}
		if random.IntN(3) == 0 {
			e.commit(t, users.Delete(account, "n", nil, nil))
			if random.IntN(2) == 0 {
				e.commit(t, dids.Insert(1, account, "n"))
			}
			e.commit(t, users.Insert(account, "n", nil, nil))
		}
		running.Wait()
		e.wantTheirs(t)
	}
}
