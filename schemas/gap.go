package schemas

// GapOutboxLacks begins the reason of a gap that is the outbox's: it lost what it had stored.
const GapOutboxLacks = "the outbox lacks what was stored in it last"

// Gap is a stretch of the WAL whose changes walhook may never see.
type Gap struct {
	From LSN
	To   LSN // 0 when not known
	// Accepted says that an operator has decided to continue without these changes.
	Accepted bool
	// OtherHistory says that the source is another one than the one that was read before,
	// or an earlier state of it: what its rows say of their age means nothing.
	OtherHistory bool
	Reason       string
}

// StartOver is an operator's decision to continue behind a gap, from a new snapshot.
type StartOver struct {
	Gap Gap
	// Reconcile asks that every endpoint is told what it missed.
	Reconcile bool
}

// Visible is what a snapshot of the source sees (PostgreSQL manual, System Information
// Functions, pg_current_snapshot).
type Visible struct {
	// End is where the WAL ended after the snapshot was taken: the commits of all that it
	// sees are before it.
	End LSN
	// Xmin is the oldest transaction that ran: all earlier ones were over. Xmax is the
	// next one. Both have the epoch.
	Xmin, Xmax uint64
	// Published is what the publication held, as the reader writes it; "" for unknown.
	Published string
}

// maxXidAge is how many transactions a row's 32-bit xmin may be old and still be told
// from one of another epoch.
const maxXidAge = 1 << 30

// ChangedSince reports whether a row may have been written by a transaction that was not
// over before xmin, seen from a snapshot whose next transaction is xmax. It is false for
// certain only: a subtransaction is none of those that a snapshot lists.
func ChangedSince(row uint32, xmin, xmax uint64) bool {
	const bootstrap, frozen = 1, 2
	if row == bootstrap || row == frozen {
		return false
	}
	full := xmax&^0xffffffff | uint64(row)
	if full >= xmax {
		if full < 1<<32 {
			return true // none that there can be
		}
		full -= 1 << 32
	}
	return full >= xmin
}

// Comparable reports whether rows' ages tell what changed between a transaction and a
// later snapshot whose next one is xmax.
func Comparable(xmin, xmax uint64) bool { return xmin != 0 && xmin <= xmax && xmax-xmin < maxXidAge }
