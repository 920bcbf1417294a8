package sender

import (
	"container/heap"
	"iter"
	"time"
)

// fifo is a queue on a slice, which it reuses once it is empty.
type fifo[T any] struct {
	items []T
	head  int
}

func (f *fifo[T]) len() int { return len(f.items) - f.head }

func (f *fifo[T]) push(item T) {
	if f.head > 64 && f.head > len(f.items)/2 {
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, item)
}

func (f *fifo[T]) pop() T {
	var zero T
	item := f.items[f.head]
	f.items[f.head] = zero
	f.head++
	if f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
	}
	return item
}

// at is the i-th item, from 0, until the next push or pop.
func (f *fifo[T]) at(i int) *T { return &f.items[f.head+i] }

func (f *fifo[T]) all() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, item := range f.items[f.head:] {
			if !yield(item) {
				return
			}
		}
	}
}

// wakes holds the lanes that wait for an instant, in one heap for one timer. A lane's
// fields wakeAt and wakeIndex say where it is in the heap.
type wakes struct{ lanes wakeHeap }

// set moves a lane to an instant; zero removes it.
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

// due removes and returns a lane whose instant is past; nil for none.
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
