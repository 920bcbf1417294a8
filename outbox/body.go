package outbox

import "walhook/outbox/route"

// A large body that goes to several endpoints, or is sent again, is stored once.
// Of the events of one append that have the same body the first carries it, and
// each of the others names that one in body_of, the body's length in body_size,
// and has an empty body. So does a repetition. They are in one partition, which
// retention drops whole.

// sharedFrom is the length from which a body is stored once. Below it, reading
// another row costs more than the copy.
const sharedFrom = 2 << 10

const (
	// Of an event e.
	sizeSQL = `coalesce(e.body_size, octet_length(e.body))`
	bodySQL = `CASE WHEN e.body_of IS NULL THEN e.body ELSE (SELECT o.body FROM walhook.event o WHERE o.id = e.body_of) END`
)

// sharedBodies goes through the events of one append in order.
type sharedBodies struct {
	last *route.Event // that carries a large body
}

// carrier is the id of the event that carries the body of e; nil for e itself.
// Routing hands one slice to all endpoints that get the same body.
func (s *sharedBodies) carrier(e *route.Event) *int64 {
	if len(e.Body) < sharedFrom {
		return nil
	}
	if c := s.last; c != nil && len(c.Body) == len(e.Body) && &c.Body[0] == &e.Body[0] && eventPartition(c.ID) == eventPartition(e.ID) {
		return &c.ID
	}
	s.last = e
	return nil
}

// errCarrierGone is met in a damaged log alone: retention drops both together.
var errCarrierGone = &badItem{asideUnreadable, "the event that carries its body no longer exists"}
