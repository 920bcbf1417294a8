package sender

import (
	"container/heap"
	"time"
)

// wakes commands the lanes that wait for an instant: one heap for all of them,
// and one timer. A lane's place is in its own fields wakeAt and wakeIndex.
type wakes struct{ lanes wakeHeap }

// set moves a lane to an instant; zero takes it out.
func (w *wakes) set(l *lane, at time.Time) {
	if l.sched.wakeAt.Equal(at) {
		return
	}
	listed := !l.sched.wakeAt.IsZero()
	l.sched.wakeAt = at
	switch {
	case at.IsZero():
		heap.Remove(&w.lanes, l.sched.wakeIndex)
	case listed:
		heap.Fix(&w.lanes, l.sched.wakeIndex)
	default:
		heap.Push(&w.lanes, l)
	}
}

// next is the first instant; zero for none.
func (w *wakes) next() time.Time {
	if len(w.lanes) == 0 {
		return time.Time{}
	}
	return w.lanes[0].sched.wakeAt
}

// due takes out a lane whose instant has come.
func (w *wakes) due(now time.Time) *lane {
	if len(w.lanes) == 0 || now.Before(w.lanes[0].sched.wakeAt) {
		return nil
	}
	l := w.lanes[0]
	heap.Pop(&w.lanes)
	l.sched.wakeAt = time.Time{}
	return l
}

type wakeHeap []*lane

func (h wakeHeap) Len() int           { return len(h) }
func (h wakeHeap) Less(i, j int) bool { return h[i].sched.wakeAt.Before(h[j].sched.wakeAt) }
func (h wakeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].sched.wakeIndex, h[j].sched.wakeIndex = i, j
}

func (h *wakeHeap) Push(x any) {
	l := x.(*lane)
	l.sched.wakeIndex = len(*h)
	*h = append(*h, l)
}

func (h *wakeHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return l
}
