package retry

import "time"

// remindEvery is how often an error that lasts is logged again.
const remindEvery = time.Minute

// Reminder says when an error that lasts is worth a line in the logs: when it
// begins, and every minute while it lasts. The zero Reminder is for an error that
// has not begun. It is not safe for several goroutines.
type Reminder struct {
	// Changes is how many lines an error may have before each further one waits for
	// its minute: an error often has several texts while a server stops and starts.
	Changes int

	logged time.Time // the last line; zero for none
	text   string    // of it
	lines  int
}

// Due says whether the error is to be logged now. text is what the error says;
// one that is always logged in the same words has none.
func (r *Reminder) Due(text string) bool {
	return r.logged.IsZero() || text != r.text && r.lines < r.Changes || time.Since(r.logged) >= remindEvery
}

// Logged notes a line.
func (r *Reminder) Logged(text string) { r.logged, r.text, r.lines = time.Now(), text, r.lines+1 }

// Reset notes that the error is over.
func (r *Reminder) Reset() { r.logged, r.text, r.lines = time.Time{}, "", 0 }
