package sender

import "slices"

// offsetTracker holds the events that a lane has accepted and their states, in order
// of id. Its first unsettled entry is the lane's cursor.
type offsetTracker struct {
	entries []entry
	head    int // index of the first entry; those before it are dropped
}

type entry struct {
	id    int64
	state entryState
}

type entryState byte

const (
	waiting entryState = iota // in the lane's queue
	taken                     // in flight, or its settlement is not committed
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

// add adds an event; false when the tracker holds it already.
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

// dropWaiting drops the waiting entries and returns their lowest and highest id;
// zeros when none was waiting.
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

// first is the lowest unsettled id, or zero for none. It drops the settled entries
// before that, up to upto.
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
