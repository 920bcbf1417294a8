package route

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

// Webhooks that change one after the other leave the view as if all were set at once.
func TestView_ChangedWebhooksAreAsIfAllWereSet(t *testing.T) {
	f := newFeed(t)
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	hooks := []string{HookRecords, HookAll, "object", "notifications", "missed_call"}
	for _, d := range f.view.Catalog.Derivations() {
		hooks = append(hooks, d.Hook)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	stands := map[int64]*Endpoint{}
	f.view.SetWebhooks(0, map[string][]*Endpoint{})
	for version := int64(1); version <= 500; version++ {
		var changed []*Endpoint
		var gone []WebhookID
		for range random.IntN(4) {
			id := int64(random.IntN(12))
			w := &Endpoint{Account: fmt.Sprint(id % 3), ID: id, Subscription: &Subscription{Hook: hooks[random.IntN(len(hooks))]}}
			switch random.IntN(5) {
			case 0, 1:
				gone = append(gone, WebhookID{w.Account, w.ID})
				delete(stands, id)
				continue
			case 2:
				w.Subscription.Daily = true
				w.Day = NewOpenDay(UTC(), UTC().Ended(noon), noon.Add(time.Duration(random.IntN(72))*time.Hour))
			}
			if slices.Contains(gone, WebhookID{w.Account, w.ID}) {
				continue // a webhook that was deleted does not come back
			}
			changed, stands[id] = append(changed, w), w
		}
		f.view.ChangeWebhooks(version, changed, gone)
		all := map[string][]*Endpoint{}
		for _, w := range stands {
			all[w.Account] = append(all[w.Account], w)
		}
		want := NewView(f.view.Catalog)
		want.SetWebhooks(version, all)
		for what, both := range map[string][2]any{
			"webhooks": {f.view.Webhooks, want.Webhooks}, "hooks": {f.view.wanted, want.wanted}, "rules": {f.view.derives, want.derives},
			"open days": {slices.Sorted(maps.Keys(f.view.daily)), slices.Sorted(maps.Keys(want.daily))}, "version": {f.view.WebhooksVersion, want.WebhooksVersion},
		} {
			if !reflect.DeepEqual(both[0], both[1]) {
				t.Fatalf("version %d, %s: %v, want %v", version, what, both[0], both[1])
			}
		}
		if end := want.nextEnd; f.view.nextEnd.IsZero() != end.IsZero() || f.view.nextEnd.After(end) {
			t.Fatalf("version %d: the next day ends at %v, want %v or earlier", version, f.view.nextEnd, end)
		}
	}
}
