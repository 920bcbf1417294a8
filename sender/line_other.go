//go:build !unix

package sender

import "time"

// aShortWhile is how long a kept line is believed to be open without a look:
// receivers close idle connections after seconds.
const aShortWhile = time.Second

// gone says that a kept line had better not be used.
func (l *line) gone() bool { return time.Since(l.kept) > aShortWhile }
