package outbox

// LaneStatus is how delivery to an endpoint stands: the words of walhook_lanes.
//
//	         full, or a read is due                  several records fail
//	live ◀────────────────────────▶ behind       ┌──────────────────────────┐
//	  │         all of it is read      │         ▼                          │
//	  └──── 429, 503 ──▶ paused ◀──────┘       open ──open_until──▶ half_open
//	            paused_until is over             ▲                  │      │
//	                                             └── a probe fails ─┘      └─ delivered ─▶ behind
//
//	any ──the endpoint is not active──▶ held ──it is active again──▶ live or behind
//
// Where several are so, the first of held, open, half_open, paused and behind is
// what the lane is called.
type LaneStatus string

// The statuses of a lane.
const (
	LaneLive     LaneStatus = "live"      // at the tail of the event log
	LaneBehind   LaneStatus = "behind"    // lags, and reads its own range of the event log
	LanePaused   LaneStatus = "paused"    // the endpoint asked to be left alone
	LaneOpen     LaneStatus = "open"      // its breaker lets nothing through
	LaneHalfOpen LaneStatus = "half_open" // its breaker lets one probe through at a time
	LaneHeld     LaneStatus = "held"      // the endpoint is not active
)

// LaneStatuses are all of them.
func LaneStatuses() []LaneStatus {
	return []LaneStatus{LaneLive, LaneBehind, LanePaused, LaneOpen, LaneHalfOpen, LaneHeld}
}

// LaneFacts is what decides how a lane is called. The zero value of a lane that
// has no row, and of an active endpoint, is live.
type LaneFacts struct {
	Endpoint EndpointState // as its sender has it: unusable where what is stored of it cannot be used
	// Current says that breaker and pause are about the endpoint as it stands now.
	// Those about an older revision do not bind it.
	Current bool
	Open    bool // the breaker is not closed
	Waits   bool // its open time is not over
	Paused  bool // the pause that the endpoint asked for is not over
	Behind  bool
}

// Status is the one place that names it, for the sender's metric, status and
// endpoints.
func (f LaneFacts) Status() LaneStatus {
	switch {
	case f.Endpoint != EndpointActive:
		return LaneHeld
	case f.Current && f.Open && f.Waits:
		return LaneOpen
	case f.Current && f.Open:
		return LaneHalfOpen
	case f.Current && f.Paused:
		return LanePaused
	case f.Behind:
		return LaneBehind
	}
	return LaneLive
}

// LaneFactsSQL are LaneFacts of an endpoint p, what is set aside of it, a, and its
// lane's stored row l, if any.
const LaneFactsSQL = `
	CASE WHEN p.state = 'active' AND a.endpoint IS NOT NULL THEN 'unusable' ELSE coalesce(p.state, 'unusable') END,
	coalesce(l.revision >= p.revision, false), coalesce(l.open, false), coalesce(l.open_until > clock_timestamp(), false),
	coalesce(l.paused_until > clock_timestamp(), false), coalesce(l.behind, false)`

// Columns are where a row of LaneFactsSQL is scanned into.
func (f *LaneFacts) Columns() []any {
	return []any{&f.Endpoint, &f.Current, &f.Open, &f.Waits, &f.Paused, &f.Behind}
}
