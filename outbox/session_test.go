package outbox

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSession_LeaseEndsByTheClockOfTheDatabase(t *testing.T) {
	w := newWorld(t)
	s, _ := w.join(t)
	before := time.Now()
	until, err := s.Renew(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if until.Before(before.Add(lease)) || until.After(time.Now().Add(lease)) {
		t.Errorf("the lease holds until %s, want %s from when it was asked", until, lease)
	}
	w.expire(t, s)
	if _, err := s.Renew(t.Context()); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("renewed after the end: %v", err)
	}
}

func TestSession_RenewOfAnExpelledSenderIsRefused(t *testing.T) {
	w := newWorld(t)
	first, _ := w.join(t)
	w.expire(t, first)
	w.join(t)
	if _, err := first.Renew(t.Context()); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("renewed: %v", err)
	}
	if _, _, err := first.Rebalance(t.Context()); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("rebalanced: %v", err)
	}
}

// A lease from before the clock of the database was set back is nobody's: its
// shards would wait for the clock to catch up.
func TestSession_ALeaseFarAheadIsOver(t *testing.T) {
	w := newWorld(t)
	for _, until := range []string{"'infinity'", "clock_timestamp() + interval '1 day'"} {
		w.exec(t, "DELETE FROM walhook.sender")
		dead, _ := w.join(t)
		w.exec(t, "UPDATE walhook.sender SET lease_until = "+until+" WHERE id = $1", dead.id)
		_, h := w.join(t)
		if len(h.Shards) != Shards {
			t.Errorf("until %s: %d shards are gained, want all", until, len(h.Shards))
		}
	}
}

func TestSession_SharesAreFair(t *testing.T) {
	w := newWorld(t)
	sessions := make([]*Session, 0, 3)
	for n, want := range [][]int{{32}, {16, 16}, {11, 10, 11}} {
		s, err := w.store.Join(t.Context(), "test", lease)
		if err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, s)
		for _, s := range sessions { // the older ones give up what is too much, the new one takes it
			_, surplus, err := s.Rebalance(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var drained []Shard
			for _, id := range surplus {
				drained = append(drained, Shard{ID: id})
			}
			if err := s.Release(t.Context(), drained); err != nil {
				t.Fatal(err)
			}
		}
		got := w.held(t)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%d sessions hold %v shards, want %v", n+1, got, want)
		}
	}
	if err := sessions[0].Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range sessions[1:] {
		if _, _, err := s.Rebalance(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.held(t); !slices.Equal(got, []int{16, 16}) {
		t.Errorf("after one left the others hold %v shards", got)
	}
}

// held says how many shards each sender holds.
func (w *world) held(t *testing.T) []int {
	t.Helper()
	return all[int](t, w, "SELECT count(*) FROM walhook.shard WHERE sender IS NOT NULL GROUP BY sender")
}

func TestSession_TakesOverWhatAnExpiredOneHeld(t *testing.T) {
	w := newWorld(t)
	first, gained := w.join(t)
	if len(gained.Shards) != Shards {
		t.Fatalf("gained %d shards", len(gained.Shards))
	}
	second, gained := w.join(t)
	if len(gained.Shards) != 0 {
		t.Errorf("gained %d shards that are held", len(gained.Shards))
	}
	w.expire(t, first)
	gained, surplus, err := second.Rebalance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(gained.Shards) != Shards || len(surplus) != 0 {
		t.Errorf("gained %d shards, surplus %v", len(gained.Shards), surplus)
	}
}

func TestSession_AReleasedShardKeepsItsTail(t *testing.T) {
	w := newWorld(t)
	first, _ := w.join(t)
	second, _ := w.join(t)
	_, surplus, err := first.Rebalance(t.Context())
	if err != nil || len(surplus) != 16 {
		t.Fatalf("surplus %v, %v", surplus, err)
	}
	if err := first.Release(t.Context(), []Shard{{ID: surplus[0], Tail: 70}, {ID: surplus[1]}}); err != nil {
		t.Fatal(err)
	}
	gained, _, err := second.Rebalance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(gained.Shards, func(a, b Shard) int { return a.ID - b.ID })
	if want := []Shard{{surplus[0], 70}, {surplus[1], 0}}; !slices.Equal(gained.Shards, want) {
		t.Errorf("gained %v, want %v", gained.Shards, want)
	}
}

func TestSession_StaleOneWritesNothing(t *testing.T) {
	w := newWorld(t)
	e := w.event(t, 1, w.endpoint(t, "7"), "dids:1")
	waiting := w.event(t, 2, e.Endpoint, "dids:1")
	stale, _ := w.join(t)
	w.settle(t, stale, retried(e, time.Hour), parked(waiting))
	w.expire(t, stale)
	for _, taken := range []string{"expired", "taken over"} {
		if taken == "taken over" {
			w.join(t)
		}
		for name, write := range map[string]func() error{
			"settle": func() error {
				s := fromRetry(dead(e))
				s.Disable = "gone"
				_, err := stale.Settle(t.Context(), []Settlement{s})
				return err
			},
			"save": func() error {
				return stale.Save(t.Context(), []LaneState{{Endpoint: e.Endpoint, Behind: true, Cursor: 9}}, []Shard{{ID: ShardOf(e.Endpoint), Tail: 9}})
			},
			"give up": func() error { return stale.Release(t.Context(), []Shard{{ID: 0, Tail: 9}}) },
			"expire":  func() error { return stale.Expire(t.Context(), Endpoint{ID: e.Endpoint, FeedFrom: 9}, 0) },
		} {
			if err := write(); !errors.Is(err, ErrLeaseLost) {
				t.Errorf("%s, %s: %v", taken, name, err)
			}
		}
	}
	for table, want := range map[string]int{"attempt": 1, "retry": 2, "dead_letter": 0, "lane": 0} {
		if got := w.count(t, table); got != want {
			t.Errorf("%s has %d rows, want %d", table, got, want)
		}
	}
	if tail := one[int64](t, w, "SELECT max(tail) FROM walhook.shard"); tail != 0 {
		t.Errorf("a tail moved to %d", tail)
	}
	if state := one[string](t, w, "SELECT state FROM walhook.endpoint"); state != "active" {
		t.Errorf("the endpoint is %s", state)
	}
}

func TestSession_TakeoverWaitsForWhatIsCommitting(t *testing.T) {
	w := newWorld(t)
	e := w.event(t, 1, w.endpoint(t, "7"), "dids:1")
	first, _ := w.join(t)

	// What Settle sends, stopped before its commit.
	committing := w.begin(t)
	execTx(t, committing, assertSenderSQL, first.id, first.timeline)
	execTx(t, committing, insertAttempts.listed[0], time.Now(), e.Endpoint, e.ID, 1, 1, time.Duration(1), 200, "delivered", "2xx", "", "")
	if _, err := first.Renew(t.Context()); err != nil {
		t.Errorf("its own renewal waits: %v", err)
	}
	w.expire(t, first)

	second, err := w.store.Join(t.Context(), "second", lease)
	if err != nil {
		t.Fatal(err)
	}
	type rebalanced struct {
		gained Handover
		err    error
	}
	done := make(chan rebalanced, 1)
	go func() {
		gained, _, err := second.Rebalance(t.Context())
		done <- rebalanced{gained, err}
	}()
	w.blocked(t, "DELETE FROM walhook.sender")
	select {
	case r := <-done:
		t.Fatalf("took over %d shards while the first was committing: %v", len(r.gained.Shards), r.err)
	default:
	}
	commit(t, committing)
	r := <-done
	if r.err != nil || len(r.gained.Shards) != Shards || r.gained.Horizon != e.ID {
		t.Fatalf("gained %+v, %v", r.gained, r.err)
	}
	unsettled, err := second.Tail(t.Context(), TailQuery{Upto: r.gained.Horizon, Shards: []int{ShardOf(e.Endpoint)}, Unsettled: true, Limit: 10, MaxBytes: 1000})
	if err != nil || len(unsettled.Events) != 0 {
		t.Errorf("what the first delivered is read again: %v, %v", ids(unsettled.Events), err)
	}
}

func TestSession_RenewalThatComesFirstKeepsTheLease(t *testing.T) {
	w := newWorld(t)
	first, _ := w.join(t)
	w.expire(t, first)
	renewing := w.begin(t)
	execTx(t, renewing, "UPDATE walhook.sender SET lease_until = clock_timestamp() + interval '1 minute' WHERE id = $1", first.id)
	second, err := w.store.Join(t.Context(), "second", lease)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	var gained Handover
	go func() {
		var err error
		gained, _, err = second.Rebalance(t.Context())
		done <- err
	}()
	w.blocked(t, "DELETE FROM walhook.sender")
	commit(t, renewing)
	if err := <-done; err != nil || len(gained.Shards) != 0 {
		t.Errorf("took %d shards of a sender that renewed, %v", len(gained.Shards), err)
	}
}

func TestSession_LeaveFreesItsShards(t *testing.T) {
	w := newWorld(t)
	first, _ := w.join(t)
	if err := first.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, gained := w.join(t); len(gained.Shards) != Shards {
		t.Errorf("gained %d shards", len(gained.Shards))
	}
	if _, err := first.Settle(t.Context(), nil); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("settled after it left: %v", err)
	}
}

func TestSession_LanesSurviveAHandover(t *testing.T) {
	w := newWorld(t)
	first, _ := w.join(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	lanes := []LaneState{
		{Endpoint: 1, Revision: 4, Behind: true, Cursor: 41, LastReason: "paused", PausedUntil: now.Add(time.Minute)},
		{Endpoint: 2, Open: true, OpenUntil: now.Add(time.Hour), Opens: 3, FailingSince: now.Add(-time.Hour), LastReason: "5xx", Cursor: 7},
		{Endpoint: 3, FailingSince: now, LastReason: "timeout_header"},
		{Endpoint: 4, Behind: true, Cursor: 5},
	}
	if err := first.Save(t.Context(), lanes, []Shard{{ID: 1, Tail: 50}, {ID: 2, Tail: 60}}); err != nil {
		t.Fatal(err)
	}
	lanes[0].Cursor = 44
	idle := LaneState{Endpoint: 4, Cursor: 60, LastReason: "5xx"}
	if err := first.Save(t.Context(), []LaneState{lanes[0], idle}, []Shard{{ID: 1, Tail: 55}, {ID: 2, Tail: 10}}); err != nil {
		t.Fatal(err)
	}
	w.expire(t, first)
	_, gained := w.join(t)
	slices.SortFunc(gained.Lanes, func(a, b LaneState) int { return int(a.Endpoint - b.Endpoint) })
	for i := range gained.Lanes { // the same instants, give or take the way there
		l, want := &gained.Lanes[i], &lanes[min(i, 2)]
		for _, at := range [][2]*time.Time{{&l.OpenUntil, &want.OpenUntil}, {&l.PausedUntil, &want.PausedUntil}, {&l.FailingSince, &want.FailingSince}} {
			if at[1].IsZero() == at[0].IsZero() && about(*at[0], *at[1], now) {
				*at[0] = *at[1]
			}
		}
	}
	if !slices.Equal(gained.Lanes, lanes[:3]) {
		t.Errorf("lanes are\n%+v\nwant\n%+v", gained.Lanes, lanes[:3])
	}
	tails := map[int]int64{}
	for _, shard := range gained.Shards {
		tails[shard.ID] = shard.Tail
	}
	if tails[1] != 55 || tails[2] != 60 || tails[3] != 0 {
		t.Errorf("tails are %v; a tail never moves back", tails)
	}
}

func TestSession_HandoverNamesOnlyItsOwnShards(t *testing.T) {
	w := newWorld(t)
	first, _ := w.join(t)
	for _, id := range []int64{3, 20, 35} { // shards 3, 20 and 3
		e := w.event(t, id, w.endpointID(t, id), "dids:1")
		w.settle(t, first, retried(e, time.Hour))
		if err := first.Save(t.Context(), []LaneState{{Endpoint: id, Behind: true}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	second, _ := w.join(t)
	if err := first.Release(t.Context(), []Shard{{ID: 3}}); err != nil {
		t.Fatal(err)
	}
	gained, _, err := second.Rebalance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var lanes, blocked []int64
	for _, l := range gained.Lanes {
		lanes = append(lanes, l.Endpoint)
	}
	for _, b := range gained.Blocked {
		blocked = append(blocked, b.Endpoint)
		if !b.Blocked || b.Record != "dids:1" || time.Until(b.NextAt) < 50*time.Minute {
			t.Errorf("record state %+v", b)
		}
	}
	slices.Sort(lanes)
	slices.Sort(blocked)
	if want := []int64{3, 35}; !slices.Equal(lanes, want) || !slices.Equal(blocked, want) || gained.Horizon != 35 {
		t.Errorf("lanes %v, blocked %v, horizon %d", lanes, blocked, gained.Horizon)
	}
}

func TestSession_EndpointsChangedReportsItsOwnShards(t *testing.T) {
	w := newWorld(t)
	s, _ := w.join(t)
	mine, other := w.endpointID(t, 3), w.endpointID(t, 20)
	changed, at, err := s.EndpointsChanged(t.Context(), time.Time{})
	if err != nil || len(changed) != 2 {
		t.Fatalf("%d endpoints, %v", len(changed), err)
	}
	w.join(t)
	if err := s.Release(t.Context(), []Shard{{ID: ShardOf(other)}}); err != nil {
		t.Fatal(err)
	}
	// A change that was stamped before the last question and committed after it.
	w.exec(t, "UPDATE walhook.endpoint SET revision = 2, changed_at = $1::timestamptz - interval '5 seconds'", at)
	changed, at, err = s.EndpointsChanged(t.Context(), at)
	if err != nil || len(changed) != 0 {
		t.Errorf("changed are %+v, %v: each look goes far back", changed, err)
	}
	s.lookedBack = s.lookedBack.Add(-lookBackEvery)
	changed, _, err = s.EndpointsChanged(t.Context(), at)
	if err != nil || len(changed) != 1 || changed[0] != (EndpointRevision{ID: mine, Revision: 2}) {
		t.Errorf("changed are %+v, %v", changed, err)
	}
}

// A sender that was not told of the shards it gained would hold them for ever
// and send nothing of them.
func TestSession_EndsWhenTheAnswerAboutGainedShardsIsLost(t *testing.T) {
	w := newWorldAlone(t)
	s, err := w.store.Join(t.Context(), "one", lease)
	if err != nil {
		t.Fatal(err)
	}
	w.exec(t, `
		CREATE FUNCTION public.cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'cut off on committing'; END $$`)
	w.exec(t, `CREATE CONSTRAINT TRIGGER cut AFTER UPDATE ON walhook.shard DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.cut()`)
	if gained, _, err := s.Rebalance(t.Context()); !errors.Is(err, ErrUncertain) || len(gained.Shards) > 0 {
		t.Errorf("gained %d shards, %v; want %v", len(gained.Shards), err, ErrUncertain)
	}
	w.exec(t, "DROP TRIGGER cut ON walhook.shard")
	if gained, _, err := s.Rebalance(t.Context()); err != nil || len(gained.Shards) != Shards {
		t.Errorf("gained %d shards, %v", len(gained.Shards), err)
	}
	if _, _, err := s.Rebalance(t.Context()); err != nil {
		t.Errorf("nothing to gain: %v", err)
	}
}

// Every statement computes a shard as ShardOf does.
func TestShards_EveryStatementMeansTheSameOne(t *testing.T) {
	w := newWorld(t)
	const id = 112 // of any other number of shards near it would be in another one
	shard := ShardOf(id)
	var others []int
	for other := range Shards {
		if other != shard {
			others = append(others, other)
		}
	}
	s, _ := w.join(t)
	s.CheckHosts(func(string) error { return errors.New("not allowed") })
	w.endpointID(t, id)
	w.exec(t, "UPDATE walhook.endpoint SET expire_before = 10")
	w.event(t, 5, id, "dids:1")
	w.exec(t, "UPDATE walhook.shard SET sender = NULL WHERE id <> $1", shard)

	for _, unsettled := range []bool{false, true} {
		for _, read := range []struct {
			shards []int
			want   int
		}{{[]int{shard}, 1}, {others, 0}} {
			stretch, err := s.Tail(t.Context(), TailQuery{Shards: read.shards, Unsettled: unsettled, Limit: 10, MaxBytes: 1 << 20})
			if err != nil || len(stretch.Events) != read.want {
				t.Errorf("the tail of %d shards has %d events, want %d, %v", len(read.shards), len(stretch.Events), read.want, err)
			}
		}
	}
	future := time.Now().Add(time.Hour)
	held, _, err := s.EndpointsChanged(t.Context(), future)
	if err != nil || len(held) != 1 || w.count(t, "set_aside") != 1 {
		t.Errorf("%d endpoints are held, %d set aside, %v; want the one whose host is not allowed", len(held), w.count(t, "set_aside"), err)
	}
	if changed, _, err := s.EndpointsChanged(t.Context(), time.Time{}); err != nil || len(changed) != 1 {
		t.Errorf("%d endpoints changed, %v", len(changed), err)
	}
	for n, shards := range map[int][]int{1: {shard}, 0: others} {
		if left, err := w.store.undelivered(t.Context(), 10, shards); err != nil || len(left) != n {
			t.Errorf("%d endpoints of %d shards have undelivered events, want %d, %v", len(left), len(shards), n, err)
		}
	}

	backlog := func(what string, want float64) {
		t.Helper()
		if b, err := w.store.measure(t.Context()); err != nil || b.events != want {
			t.Errorf("%s: the backlog is %g, want %g, %v", what, b.events, want, err)
		}
	}
	backlog("beyond the tail", 1)
	w.exec(t, "UPDATE walhook.shard SET tail = 100 WHERE id = $1", shard)
	backlog("passed by the tail", 0)
	if err := s.Save(t.Context(), []LaneState{{Endpoint: id, Revision: 1, Behind: true, Cursor: 1}}, nil); err != nil {
		t.Fatal(err)
	}
	backlog("before a lagging lane", 1)

	if err := s.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, next := w.join(t); len(next.Lanes) != 1 {
		t.Errorf("the next owner learns of %d lanes", len(next.Lanes))
	}
	w.exec(t, "UPDATE walhook.shard SET sender = NULL")
	if err := w.store.expireFreeShard(t.Context(), shard, 10); err != nil {
		t.Fatal(err)
	}
	if dead, cursor := w.count(t, "dead_letter"), one[int](t, w, "SELECT cursor FROM walhook.lane"); dead != 1 || cursor != 9 {
		t.Errorf("%d dead letters, the lane is at %d", dead, cursor)
	}
}

// However many endpoints a sender gets, each is held whose host is not allowed.
func TestHosts_EveryEndpointOfManyIsChecked(t *testing.T) {
	w := newWorld(t)
	s, _ := w.join(t)
	s.CheckHosts(func(url string) error {
		if strings.Contains(url, "forbidden") {
			return errors.New("not allowed")
		}
		return nil
	})
	const n = 2*scanRows + 1
	w.exec(t, `INSERT INTO walhook.endpoint (id, account, url, state, secret)
		SELECT n, n::text, CASE WHEN n IN (1, $1::bigint, $1::bigint + 1, $2::bigint) THEN 'https://forbidden.example.com/' ELSE 'https://example.com/' END, 'active', 'whsec_eA=='
		FROM generate_series(1::bigint, $2::bigint) n`, scanRows, n)
	if _, _, err := s.EndpointsChanged(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all[string](t, w, "SELECT endpoint::text FROM walhook.set_aside ORDER BY endpoint"), "1", fmt.Sprint(scanRows), fmt.Sprint(scanRows+1), fmt.Sprint(n))
}
