package outboxtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"walhook/outbox"
	"walhook/outbox/outboxtest/memory"
	"walhook/sender"
)

func TestMemory_KeepsWhatALogPromises(t *testing.T) {
	Run(t, func(testing.TB) Harness { return newMemory() })
}

// inMemory is a log in memory as the suite asks it.
type inMemory struct {
	*memory.Log
	made map[int]int64 // endpoints by shard
	old  int64         // events before it are past retention
}

func newMemory() *inMemory { return &inMemory{Log: memory.New(), made: map[int]int64{}} }

func (m *inMemory) Join(_ context.Context, name string, lease time.Duration, checkHost func(string) error) (sender.Session, error) {
	return m.Log.Join(name, lease, checkHost), nil
}

func (m *inMemory) Endpoint(_ testing.TB, shard int) outbox.Endpoint {
	m.made[shard]++
	id := int64(shard) + outbox.Shards*m.made[shard]
	e := outbox.Endpoint{ID: id, Account: fmt.Sprint(id), Revision: 1, URL: fmt.Sprint("https://example.com/", id), State: outbox.EndpointActive}
	m.Set(e)
	return e
}

func (m *inMemory) SetURL(_ testing.TB, endpoint int64, url string) outbox.Endpoint {
	next := m.Next()
	return m.Change(endpoint, func(e *outbox.Endpoint) {
		if e.URL, e.State, e.Reason = url, outbox.EndpointActive, ""; url == "" {
			e.State, e.Reason, e.FeedFrom = outbox.EndpointCleared, "the account has no URL", next
		}
	})
}

func (m *inMemory) Await(_ testing.TB, endpoint int64) outbox.Endpoint { return m.Log.Await(endpoint) }

func (m *inMemory) Confirmed(_ testing.TB, endpoint int64) int64 { return m.Log.Confirmed(endpoint) }

func (m *inMemory) Append(_ testing.TB, drafts ...Draft) []outbox.Event {
	events := make([]outbox.Event, len(drafts))
	for i, d := range drafts {
		events[i] = outbox.Event{
			Endpoint: d.Endpoint, Record: fmt.Sprint("dids:", d.Endpoint, "/", d.Record), WebhookID: fmt.Sprint("evt_", m.Next()+int64(i)),
			Schema: "dids", Type: "update", Body: []byte(strings.Repeat("x", d.Size)),
		}
	}
	return m.Log.Append(events...)
}

func (m *inMemory) Age(testing.TB) { m.old = m.Next() }

func (m *inMemory) Trim(testing.TB) bool { return m.Log.Trim(m.old) }

func (m *inMemory) Lapse(_ testing.TB, name string) { m.Log.Lapse(name) }

func (m *inMemory) Attempts(_ testing.TB, e outbox.Event) []outbox.Attempt {
	return slices.SortedFunc(slices.Values(m.View().Attempts[e.ID]), func(a, b outbox.Attempt) int { return a.At.Compare(b.At) })
}

func (m *inMemory) Dead(testing.TB) (dead []DeadLetter) {
	for _, d := range m.View().Dead {
		dead = append(dead, DeadLetter{Event: d.Event, Attempts: d.Attempts, Reason: d.Reason})
	}
	slices.SortFunc(dead, func(a, b DeadLetter) int { return int(a.Event.ID - b.Event.ID) })
	return dead
}
