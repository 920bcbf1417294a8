package sender

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"walhook/outbox"
	"walhook/sender/deliver"
)

func TestLane_BuffersNoMoreThanItLeavesToOtherLanes(t *testing.T) {
	p := &policy{window: 64, events: 256, bytes: 256 << 10, random: middle}
	for _, c := range []struct {
		name       string
		room       func(held int) int // for all lanes
		size       int
		want, most int // bytes held
	}{
		{"alone", func(held int) int { return 1<<20 - held }, 1000, 256_000, 257_000},
		{"beside others", func(held int) int { return 100_000 - held }, 1000, 49_000, 52_000},
		{"where nothing is left", func(int) int { return 0 }, 1000, 16_000, 18_000},
		{"where all is overdrawn", func(int) int { return -1 << 20 }, 1000, 16_000, 18_000},
		{"a large event where nothing is left", func(int) int { return 0 }, 1 << 20, 1 << 20, 1 << 20},
		{"one event larger than a lane may hold", func(held int) int { return 1<<20 - held }, 16 << 20, 16 << 20, 16 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLane(p, active(1))
			body := make([]byte, c.size)
			for id := int64(1); id <= 1000; id++ {
				l.offer(outbox.Event{ID: id, Endpoint: 1, Record: fmt.Sprint(id), Body: body}, c.room(l.bodies), time.Now())
			}
			if l.bodies < c.want || l.bodies > c.most || !l.cursor.behind {
				t.Errorf("%d bytes held, behind %v; want %d to %d, and the rest left in the log", l.bodies, l.cursor.behind, c.want, c.most)
			}
		})
	}
}

func TestSender_HangingEndpointsWithLargeEventsLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const hanging = 50
		var all []outbox.Endpoint
		for id := int64(1); id <= hanging+1; id++ {
			all = append(all, active(id))
		}
		log := newFakeLog(all...)
		r := startSender(t, Config{BufferBytes: 1 << 20, LaneBytes: 256 << 10}, log, func(e outbox.Endpoint, _ outbox.Event) (deliver.Result, time.Duration) {
			if e.ID <= hanging {
				return hung, 15 * time.Second
			}
			return ok, time.Millisecond
		})
		id := int64(1)
		body := make([]byte, 64<<10)
		for range 20 {
			for endpoint := int64(1); endpoint <= hanging; endpoint++ {
				list := apart(events(endpoint, id, 1, 1))
				list[0].Body = body
				log.append(list...)
				id++
			}
		}
		after(5 * time.Second)
		log.append(apart(events(hanging+1, id, 200, 200))...)
		after(3 * time.Second)
		if n := len(r.of(hanging + 1)); n != 200 {
			t.Errorf("%d of 200 events of the healthy endpoint delivered while %d hang", n, hanging)
		}
		r.end()
	})
}

// The tailer does not read events that this machine cannot send yet.
func TestSender_ReadsNoFurtherThanItCanSend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const endpoints, perEndpoint, size = 200, 10, 16 << 10
		log := newFakeLog()
		body := make([]byte, size)
		for endpoint := int64(1); endpoint <= endpoints; endpoint++ {
			log.set(active(endpoint))
		}
		var all []outbox.Event
		for range perEndpoint {
			for endpoint := int64(1); endpoint <= endpoints; endpoint++ {
				one := apart(events(endpoint, int64(len(all)+1), 1, 1))
				one[0].Body = body
				all = append(all, one...)
			}
		}
		log.append(all...)
		r := startSender(t, Config{MaxInFlight: 8}, log, always(ok, 100*time.Millisecond))
		most := 0
		for len(log.delivered()) < len(all) {
			after(50 * time.Millisecond)
			attempts := len(log.view().attempts)
			log.fault(func() { most = max(most, log.read-size*attempts) })
		}
		if bound := enoughBytes + 3*tailBytes; most > bound || most < enoughBytes {
			t.Errorf("%d bytes were read and not delivered, want %d to %d", most, enoughBytes, bound)
		}
		r.end()
		wantOnce(t, log, len(all))
	})
}

// A record stays while something of it is in flight, or in retry; what waited
// behind it is in the log, and not in memory as well.
func TestLane_ForgetsARecordOnceNothingOfItIsInFlightOrInRetry(t *testing.T) {
	l := newLane(&policy{window: 64, events: 256, bytes: 256 << 10, random: middle}, active(1))
	r := l.record("dids:1")
	r.inFlight = 1
	l.accept(outbox.Event{ID: 1, Endpoint: 1, Record: r.name, Body: make([]byte, 100)})
	l.dropBuffered(time.Now())
	if l.records[r.name] != r || len(r.queue) != 0 || r.one[0].Body != nil {
		t.Errorf("%d events wait, and %d bytes are held", len(r.queue), len(r.one[0].Body))
	}
}
