package cdc

import (
	"context"
	"errors"
	"fmt"

	"walhook/schemas"
)

// maxUnreadable is how often the same message is asked for in vain.
const maxUnreadable = 5

// unreadable counts how often the same message could not be read. A fault on
// the way is mended by asking again; the source, or a walhook that does not
// know what the source says, is not.
type unreadable struct {
	at    schemas.LSN
	times int
}

// again is the fault that ends the reader, once there is no hope.
func (u *unreadable) again(err error) error {
	message, ok := errors.AsType[*messageError](err)
	if !ok {
		return nil
	}
	if message.at != u.at {
		*u = unreadable{at: message.at}
	}
	if u.times++; u.times < maxUnreadable {
		return nil
	}
	return &Fault{
		Problem: fmt.Sprintf("the source's message at %s could not be read %d times", message.at, u.times),
		Mend: "nothing is lost, the slot keeps it: see that nothing on the way changes the stream, and that this version of PostgreSQL is supported; " +
			"if the message itself is broken, 'walhook setup --accept-gap' goes on without it",
		Err: message.err,
	}
}

// messageError says that a message of the stream is not what the protocol says.
type messageError struct {
	at  schemas.LSN
	err error
}

func (e *messageError) Error() string { return fmt.Sprintf("decode message at %s: %v", e.at, e.err) }

func (e *messageError) Unwrap() error { return e.err }

// unread tells a message that cannot be read from what else may end its
// handling: the reader's end, a gap, and a catalog that does not answer.
func (s *stream) unread(ctx context.Context, at schemas.LSN, err error) error {
	if ctx.Err() != nil || isFinal(err) || sqlState(err) != "" || IsUnreachable(err) {
		return fmt.Errorf("handle message at %s: %w", at, err)
	}
	s.r.metrics.unreadable.Inc()
	return &messageError{at, err}
}
