package outbox

import "fmt"

// OfEndpointSQL is a condition for the rows e of the event log that are of one endpoint,
// after one id and up to another. With ORDER BY e.endpoint, e.id and a limit that is a
// query, such as LIMIT (SELECT $4::bigint), the rows come by the index of endpoints, and no
// more of them are read than the limit says. Parameters have to be queries, too.
//
// It is not written as e.endpoint = … ORDER BY e.id, because that has two other plans, and
// which one the planner takes depends on what ANALYZE found. Where one endpoint has nearly
// all events, it takes those of any endpoint for nearly all, and reads those of a quiet
// endpoint by the primary key, through everybody's. Where it takes an endpoint for a quiet
// one, it reads and sorts all that a busy one has. A comparison of rows and a limit that it
// does not know leave it nothing to find out about an endpoint. There is no condition for
// e.id alone, which would bring back the primary key, so each partition is asked.
func OfEndpointSQL(endpoint, after, upto string) string {
	return fmt.Sprintf(`(e.endpoint, e.id) > (%[1]s, %[2]s) AND (e.endpoint, e.id) <= (%[1]s, %[3]s)`, endpoint, after, upto)
}

// LastEventID is the highest id that there may be, as SQL.
const LastEventID = "9223372036854775807"
