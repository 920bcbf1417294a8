package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	// freshFor is up to which age of its signature an event is forwarded. A receiver checks
	// five minutes, perhaps after the event has waited there.
	freshFor = 60 * time.Second
	// feedPageLimit is the most events of a page, as the API has it without a limit.
	feedPageLimit = 100
)

// errAged says that an event was signed too long ago: what follows the last event that was
// forwarded is to be read again, with a new signature.
var errAged = errors.New("the event was signed too long ago")

// feedClock is the clock of the API, as one answer shows it. The clocks of this machine and
// of a proxy between, whose Date the answer may have, can be wrong.
type feedClock struct {
	began time.Time // when the answer began
	at    time.Time // the newest time that is known
	read  time.Time // when it was at, by this machine's clock
}

// newFeedClock begins with the header Date of an answer that has just come.
func newFeedClock(date string, now time.Time) feedClock {
	began, err := http.ParseTime(date)
	if err != nil {
		return feedClock{read: now}
	}
	return feedClock{began, began, now}
}

// age is how long ago an event of the answer was signed. Nothing is signed before its answer
// begins, and nothing in the future: a clock that says so is corrected.
func (c *feedClock) age(signed, now time.Time) time.Duration {
	if early := c.began.Sub(signed); early > 0 {
		c.began, c.at = signed, c.at.Add(-early)
	}
	// The monotonic clock stands still while the machine sleeps, the other one may be set.
	passed := max(now.Sub(c.read), now.Round(0).Sub(c.read.Round(0)), 0)
	if c.at.Add(passed).Before(signed) || c.at.IsZero() {
		c.at, c.read, passed = signed, now, 0
	}
	return c.at.Add(passed).Sub(signed)
}

// aged reports whether an event has to be read again before it is forwarded, since it waited
// here or in the connection while others were. One that was already read again is not.
func (l *feedListener) aged(e *pulledEvent) bool {
	seconds, err := strconv.ParseInt(e.Headers["webhook-timestamp"], 10, 64)
	if err != nil || l.clock.age(time.Unix(seconds, 0), l.now()) <= freshFor || l.readAgain {
		return false
	}
	l.readAgain = true
	l.pageLimit = min(max(l.handledNow/2, 1), feedPageLimit)
	return true
}

// readPage reads a page of pageLimit events. While --forward is slow, listen reads pages in
// place of a stream: the API writes on into a stream what would be too old once it is read.
func (l *feedListener) readPage(ctx context.Context, stopSilence func() bool, body io.Reader) error {
	var page struct {
		Data   []json.RawMessage `json:"data"`
		Cursor string            `json:"cursor"`
		More   bool              `json:"more"`
	}
	if err := json.NewDecoder(io.LimitReader(body, 2*maxFeedLine)).Decode(&page); err != nil {
		return fmt.Errorf("a page of the feed cannot be read: %w", err)
	}
	stopSilence()
	began := l.now()
	for _, event := range page.Data {
		if err := l.take(ctx, event); err != nil {
			return err
		}
	}
	if page.Cursor != "" {
		l.cursor = page.Cursor
		if err := l.file.keep(l.cursor); err != nil {
			return err
		}
	}
	switch {
	case !page.More:
		l.pageLimit = 0
	case l.now().Sub(began) < freshFor/4:
		l.pageLimit = min(2*l.pageLimit, feedPageLimit)
	}
	return nil
}
