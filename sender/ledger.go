package sender

import "slices"

// ledger remembers which events of the log a lane has accepted and how they
// stand, in order of id. From it the cursor follows: everything before the
// first that is not settled is.
type ledger struct {
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

func (l *ledger) len() int { return len(l.entries) - l.head }

func (l *ledger) find(id int64) (int, bool) {
	live := l.entries[l.head:]
	if n := len(live); n == 0 || live[n-1].id < id { // the common case
		return l.head + n, false
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
	return l.head + i, found
}

// add accepts an event; false when the ledger holds it already.
func (l *ledger) add(id int64, state entryState) bool {
	i, found := l.find(id)
	if !found {
		l.entries = slices.Insert(l.entries, i, entry{id: id, state: state})
	}
	return !found
}

func (l *ledger) set(id int64, state entryState) {
	if i, found := l.find(id); found {
		l.entries[i].state = state
	}
}

// shed forgets what is waiting and answers the lowest and highest id of that;
// zeros when nothing was waiting.
func (l *ledger) shed() (lowest, highest int64) {
	kept := l.entries[:l.head]
	for _, e := range l.entries[l.head:] {
		if e.state != waiting {
			kept = append(kept, e)
			continue
		}
		if lowest == 0 {
			lowest = e.id
		}
		highest = e.id
	}
	l.entries = kept
	return lowest, highest
}

// first is the lowest id that is not settled, after letting go of what is
// settled before it and not above upto; zero when there is none.
func (l *ledger) first(upto int64) int64 {
	for l.head < len(l.entries) && l.entries[l.head].state == settled && l.entries[l.head].id <= upto {
		l.head++
	}
	if l.head == len(l.entries) {
		l.entries, l.head = l.entries[:0], 0
		return 0
	}
	if l.head > 1024 && l.head > len(l.entries)/2 {
		l.entries = append(l.entries[:0], l.entries[l.head:]...)
		l.head = 0
	}
	return l.entries[l.head].id
}
