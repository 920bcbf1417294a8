package outbox

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"walhook/outbox/route"
	"walhook/outbox/storetest"
)

// largeText is a text that does not compress to much less.
func largeText(seed uint64, size int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	source := rand.New(rand.NewPCG(seed, 1))
	text := make([]byte, size)
	for i := range text {
		text[i] = letters[source.IntN(len(letters))]
	}
	return string(text)
}

const outboxSizeSQL = `SELECT sum(pg_total_relation_size(i.inhrelid))::bigint FROM pg_inherits i WHERE i.inhparent = 'walhook.event'::regclass`

// Wherever an event is read, it has its body, whatever became of the endpoint
// whose event carries it.
func TestBody_ALargeOneOfManyWebhooksIsStoredOnce(t *testing.T) {
	for _, webhooks := range []int{10, 100} { // inserted, and copied
		t.Run(fmt.Sprint(webhooks), func(t *testing.T) {
			const changes, size = 4, 250_000
			f := newFeedOf(t, newWorld(t), smallCatalog)
			for n := range webhooks {
				f.webhook(t, "7", fmt.Sprintf("w%03d", n), "hook = 'records'")
			}
			f.commit(t, account(8))
			before := one[int64](t, f.world, outboxSizeSQL)
			f.forget(t)
			first := f.publisher.view.NextID
			for n := range changes {
				f.commit(t, dids.Insert(n+1, 7, largeText(uint64(n), size)))
			}
			if grown := one[int64](t, f.world, outboxSizeSQL) - before; grown > 3<<20 {
				t.Errorf("%d events of %d bytes to %d webhooks grow the log by %d bytes", changes, size, webhooks, grown)
			}
			s, _ := f.join(t)
			want := map[string][]byte{} // by record
			check := func(how string, events []Event) {
				t.Helper()
				for _, e := range events {
					var n int
					_, _ = fmt.Sscanf(e.Record, "dids:%d", &n)
					if want[e.Record] == nil {
						want[e.Record] = e.Body
					}
					if !bytes.Equal(e.Body, want[e.Record]) || !bytes.Contains(e.Body, []byte(largeText(uint64(n-1), size))) {
						t.Fatalf("%s: event %d of %s has a body of %d bytes that is another one", how, e.ID, e.Record, len(e.Body))
					}
				}
			}
			var all []Event
			for after := first - 1; ; {
				stretch, err := s.Tail(t.Context(), TailQuery{Shards: allShards(), After: after, Limit: 1000, MaxBytes: 8 << 20})
				if err != nil {
					t.Fatal(err)
				}
				size := 0
				for _, e := range stretch.Events {
					size += len(e.Body)
				}
				if size > 9<<20 {
					t.Errorf("a stretch of %d bytes", size)
				}
				all = append(all, stretch.Events...)
				if after = stretch.Upto; !stretch.More {
					break
				}
			}
			check("tail", all)
			if len(all) != changes*webhooks {
				t.Fatalf("%d events, want %d", len(all), changes*webhooks)
			}
			carrier, other := all[0], all[1]
			of := func(endpoint int64) (list []Event) {
				for _, e := range all {
					if e.Endpoint == endpoint {
						list = append(list, e)
					}
				}
				return list
			}
			for _, e := range of(carrier.Endpoint) {
				f.settle(t, s, delivered(e))
			}
			f.exec(t, "UPDATE walhook.endpoint SET deleted_at = now(), url = NULL, state = 'cleared', reason = 'deleted' WHERE id = $1", carrier.Endpoint)

			events := of(other.Endpoint)
			f.settle(t, s, dead(events[0]), delivered(events[1]), retried(events[2], time.Millisecond), retried(events[3], time.Millisecond))
			due, _ := f.due(t, s, other.Endpoint, time.Now().Add(time.Minute))
			if check("retry", due); len(due) != 2 {
				t.Errorf("%d events are due", len(due))
			}
			sizes := storetest.All[int](t, f.World, "SELECT "+SizeSQL+" FROM walhook.event e WHERE endpoint = $1 ORDER BY id DESC", other.Endpoint)
			if len(sizes) != changes || sizes[0] != len(events[3].Body) {
				t.Errorf("listed: %v", sizes)
			}
			kept := func(how, reason string, e Event) {
				t.Helper()
				if !bytes.Equal(one[[]byte](t, f.world, "SELECT body FROM walhook.dead_letter WHERE event_id = $1 AND reason = $2 AND size = octet_length(body)", e.ID, reason), want[e.Record]) {
					t.Errorf("%s: the dead letter has another body", how)
				}
			}
			kept("settled", one[string](t, f.world, "SELECT reason FROM walhook.dead_letter WHERE event_id = $1", events[0].ID), events[0])

			if r := f.ask(t, request{Endpoint: other.Endpoint, Since: time.Unix(1_600_000_000, 0)}); r.Total != 2 {
				t.Errorf("%d events are to be sent again, want 2", r.Total)
			}
			f.work(t)
			again := f.tail(t, s, TailQuery{Endpoint: other.Endpoint, After: all[len(all)-1].ID})
			if check("replay", again); len(again) != 2 {
				t.Errorf("%d events are sent again", len(again))
			}

			f.expireFeed(t, s, other.Endpoint, all[len(all)-1].ID+1, 0)
			kept("expired in retry", "expired", events[3])
			third := of(all[2].Endpoint)
			f.expireFeed(t, s, third[0].Endpoint, all[len(all)-1].ID+1, 0)
			for _, e := range third {
				kept("expired", "expired", e)
			}
		})
	}
}

func TestBody_ASmallOneIsItsOwn(t *testing.T) {
	f := newFeedOf(t, newWorld(t), smallCatalog)
	f.webhook(t, "7", "a", "hook = 'records'")
	f.webhook(t, "7", "b", "hook = 'records'")
	f.commit(t, dids.Insert(1, 7, strings.Repeat("x", sharedFrom/2)), dids.Insert(2, 7, strings.Repeat("x", sharedFrom)))
	wantLines(t, all[string](t, f.world, "SELECT format('%s %s', record, body_of - id) FROM walhook.event ORDER BY id"), "dids:1 ", "dids:1 ", "dids:2 ", "dids:2 -1")
}

// An append may reach into the next partition, which outlives the one before.
func TestBody_IsCarriedWithinOnePartition(t *testing.T) {
	var s sharedBodies
	body := []byte(largeText(1, sharedFrom))
	events := []route.Event{{ID: eventPartitionSize - 2}, {ID: eventPartitionSize - 1}, {ID: eventPartitionSize}, {ID: eventPartitionSize + 1}}
	var got []int64
	for i := range events {
		events[i].Body = body
		of := s.carrier(&events[i])
		if of == nil {
			of = new(int64)
		}
		got = append(got, *of)
	}
	if want := fmt.Sprint([]int64{0, eventPartitionSize - 2, 0, eventPartitionSize}); fmt.Sprint(got) != want {
		t.Errorf("carried by %v, want %s", got, want)
	}
}

// A log that lost the carrier gives each event up by itself, in the tail and in retry.
func TestBody_WithoutItsCarrierAnEventIsADeadLetter(t *testing.T) {
	f := newFeedOf(t, newWorld(t), smallCatalog)
	for _, id := range []string{"a", "b", "c"} {
		f.webhook(t, "7", id, "hook = 'records'")
	}
	f.commit(t, dids.Insert(1, 7, largeText(1, 10_000)), dids.Insert(2, 7, "312"))
	s, _ := f.join(t)
	events := f.tail(t, s, TailQuery{Shards: allShards()})
	f.settle(t, s, retried(events[2], time.Millisecond))
	f.exec(t, "DELETE FROM walhook.event WHERE id = $1", events[0].ID)
	if due, _ := f.due(t, s, events[2].Endpoint, time.Now().Add(time.Minute)); len(due) != 0 {
		t.Errorf("%d events are due", len(due))
	}
	if left := f.tail(t, s, TailQuery{Shards: allShards(), Unsettled: true}); len(left) != 3 {
		t.Errorf("%d events are read, want the 3 small ones", len(left))
	}
	wantLines(t, all[string](t, f.world, "SELECT format('%s %s', event_id, reason) FROM walhook.dead_letter ORDER BY event_id"),
		fmt.Sprint(events[1].ID, " unreadable"), fmt.Sprint(events[2].ID, " unreadable"))
}

// However often an account has large events sent again, the log grows by short
// rows.
func TestBody_OfWhatIsSentAgainIsNotCopied(t *testing.T) {
	const times, size = 30, 250_000
	f := newFeedOf(t, newWorld(t), smallCatalog)
	f.webhook(t, "7", "a", "hook = 'records'")
	f.webhook(t, "7", "b", "hook = 'records'")
	f.commit(t, dids.Insert(1, 7, largeText(1, size)), dids.Insert(2, 7, "312"))
	s, _ := f.join(t)
	var first []Event
	for _, e := range f.tail(t, s, TailQuery{Shards: allShards()}) {
		if len(first) == 0 || first[0].Endpoint == e.Endpoint {
			first = append(first, e)
		}
		f.settle(t, s, delivered(e))
	}
	before := one[int64](t, f.world, outboxSizeSQL)
	last := f.publisher.view.NextID - 1
	for range times {
		f.ask(t, request{Endpoint: first[1].Endpoint, Since: time.Unix(1_600_000_000, 0)})
		f.work(t)
		again := f.tail(t, s, TailQuery{Endpoint: first[1].Endpoint, After: last})
		if len(again) != 2 {
			t.Fatalf("%d events are sent again, want 2", len(again))
		}
		for i, e := range again {
			if !bytes.Equal(e.Body, first[i].Body) {
				t.Fatalf("event %d of %s is sent again with another body, of %d bytes", e.ID, e.Record, len(e.Body))
			}
			last = e.ID
			f.settle(t, s, delivered(e))
		}
	}
	if grown := one[int64](t, f.world, outboxSizeSQL) - before; grown > 1<<20 {
		t.Errorf("sent again %d times, a body of %d bytes grows the log by %d bytes", times, size, grown)
	}
}
