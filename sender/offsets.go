package sender

import "slices"

// offsetTracker remembers which events of the log a lane has accepted and how they
// stand, in order of id. It gives the cursor: everything before the
// first that is not settled is.
type offsetTracker struct {
	entries []entry
	head    int // entries before it are gone
}

type entry struct {
	id    int64
	state entryState
}

type entryState byte

const (
	waiting entryState = iota // in the lane's queue
	taken                     // in flight, or its settlement is not durable yet
	settled
)

func (t *offsetTracker) len() int { return len(t.entries) - t.head }

func (t *offsetTracker) find(id int64) (int, bool) {
	live := t.entries[t.head:]
	if n := len(live); n == 0 || live[n-1].id < id { // the common case
		return t.head + n, false
	}
	i, found := slices.BinarySearchFunc(live, id, func(e entry, id int64) int {
		switch {
		case e.id < id:
			return -1
		case e.id > id:
			return 1
		}
		return 0
	})
	return t.head + i, found
}

// add accepts an event; false when the tracker holds it already.
func (t *offsetTracker) add(id int64, state entryState) bool {
	i, found := t.find(id)
	if !found {
		t.entries = slices.Insert(t.entries, i, entry{id: id, state: state})
	}
	return !found
}

func (t *offsetTracker) set(id int64, state entryState) {
	if i, found := t.find(id); found {
		t.entries[i].state = state
	}
}

// dropWaiting forgets what is waiting and answers the lowest and highest id of that;
// zeros when nothing was waiting.
func (t *offsetTracker) dropWaiting() (lowest, highest int64) {
	kept := t.entries[:t.head]
	for _, e := range t.entries[t.head:] {
		if e.state != waiting {
			kept = append(kept, e)
			continue
		}
		if lowest == 0 {
			lowest = e.id
		}
		highest = e.id
	}
	t.entries = kept
	return lowest, highest
}

// first is the lowest id that is not settled, after letting go of what is
// settled before it and not above upto; zero when there is none.
func (t *offsetTracker) first(upto int64) int64 {
	for t.head < len(t.entries) && t.entries[t.head].state == settled && t.entries[t.head].id <= upto {
		t.head++
	}
	if t.head == len(t.entries) {
		t.entries, t.head = t.entries[:0], 0
		return 0
	}
	if t.head > 1024 && t.head > len(t.entries)/2 {
		t.entries = append(t.entries[:0], t.entries[t.head:]...)
		t.head = 0
	}
	return t.entries[t.head].id
}
