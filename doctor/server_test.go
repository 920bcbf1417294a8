package doctor

import (
	"crypto/tls"
	"net"
	"testing"
	"time"
)

func only(t *testing.T, r *Report) Finding {
	t.Helper()
	findings := r.Findings()
	if len(findings) != 1 {
		t.Fatalf("%d findings", len(findings))
	}
	if f := findings[0]; f.Bad() != (len(f.Fix) > 0) {
		t.Errorf("%s is %s with %d steps", f.ID, f.Status, len(f.Fix))
	}
	return findings[0]
}

func TestTransport_IsJudgedByWhereItGoes(t *testing.T) {
	t.Parallel()
	near := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
	far := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}
	secured := &tls.ConnectionState{Version: tls.VersionTLS13}
	for name, c := range map[string]struct {
		peer     net.Addr
		state    *tls.ConnectionState
		verified bool
		want     Status
	}{
		"this machine":                {near, nil, false, OK},
		"a socket":                    {&net.UnixAddr{Net: "unix"}, nil, false, OK},
		"elsewhere, in the clear":     {far, nil, false, Warning},
		"elsewhere, verified setting": {far, nil, true, Warning},
		"elsewhere, not verified":     {far, secured, false, Warning},
		"elsewhere, verified":         {far, secured, true, OK},
		"this machine, not verified":  {near, secured, false, OK},
	} {
		r := NewReport("source.tls")
		checkTransport(r, "source", c.peer, c.state, c.verified)
		if f := only(t, r); f.Status != c.want {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// What the way there takes is not held against a clock.
func TestClock_TheRoundTripCountsAsNoDifference(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		skew, trip time.Duration
		want       Status
	}{
		"the same":            {0, 0, OK},
		"a little":            {time.Second, time.Millisecond, OK},
		"ahead":               {3 * time.Second, time.Millisecond, Warning},
		"behind":              {-3 * time.Second, time.Millisecond, Warning},
		"far behind":          {-2 * time.Minute, time.Millisecond, Failed},
		"it may be the trip":  {3 * time.Second, 4 * time.Second, OK},
		"it is not the trip":  {5 * time.Second, 4 * time.Second, Warning},
		"far ahead and slow":  {90 * time.Second, 4 * time.Second, Failed},
		"at the bound, ahead": {2 * time.Second, 0, OK},
	} {
		r := NewReport("source.clock")
		before := time.Unix(1_700_000_000, 0)
		checkClock(r, "source", before, before.Add(c.trip/2+c.skew), before.Add(c.trip))
		if f := only(t, r); f.Status != c.want {
			t.Errorf("%s: %+v", name, f)
		}
	}
}
