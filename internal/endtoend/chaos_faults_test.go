package endtoend

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/internal/carrier"
	"walhook/internal/chaos"
	"walhook/internal/receiver"
)

// fault is one thing that goes wrong for a while: what it breaks is broken by
// nothing else meanwhile.
type fault struct {
	kind string
	what string // that is broken
	// do breaks it and fixes it again. It may fix early when ctx ends.
	do func(ctx context.Context) error
}

// breakThings draws faults from the seed and lets them happen, several at once,
// until ctx ends. All is fixed when it returns.
func (c *chaosWorld) breakThings(t *testing.T, ctx context.Context) {
	random := rand.New(rand.NewPCG(c.seed, 4))
	var running sync.WaitGroup
	var mu sync.Mutex
	broken := map[string]bool{}
	happen := func(f fault) {
		mu.Lock()
		defer mu.Unlock()
		if broken[f.what] {
			return // the draw is used up: the plan does not depend on time
		}
		broken[f.what] = true
		c.count(f.kind)
		running.Go(func() {
			if err := f.do(ctx); err != nil && t.Context().Err() == nil {
				t.Errorf("%s of %s: %v", f.kind, f.what, err)
			}
			mu.Lock()
			defer mu.Unlock()
			broken[f.what] = false
		})
	}
	happen(c.freeze(c.fleet[len(c.fleet)-1])) // once for sure
	for linger(ctx, between(random, 100*time.Millisecond, c.pace())) {
		happen(c.draw(t, random))
	}
	running.Wait()
}

// pace is the longest time between two faults: a short run has to see much.
func (c *chaosWorld) pace() time.Duration {
	if *chaosFlag == 0 {
		return 600 * time.Millisecond
	}
	return 1500 * time.Millisecond
}

// draw is the next fault. It always takes the same numbers for the same fault.
func (c *chaosWorld) draw(t *testing.T, random *rand.Rand) fault {
	one := c.fleet[random.IntN(len(c.fleet))]
	road := random.IntN(chaosServers)
	cluster := c.clusters[random.IntN(len(c.clusters))]
	short := between(random, 100*time.Millisecond, 3*time.Second)
	long := short
	if random.IntN(4) == 0 && *chaosFlag > 0 {
		long = between(random, 12*time.Second, 20*time.Second)
	}
	weather := []chaos.Weather{
		{Latency: between(random, 10*time.Millisecond, 100*time.Millisecond)},
		{Bandwidth: 20<<10 + random.IntN(500<<10)},
		{Silent: true},
		{Refusing: true},
	}[random.IntN(4)]
	mood, moodName := c.mood(random)
	clearing := random.IntN(clearedAccounts)
	switch n := random.IntN(100); {
	case n < 14:
		return fault{"kill", one.name, func(ctx context.Context) error {
			one.end(syscall.SIGKILL)
			linger(ctx, short/2)
			return one.start(t)
		}}
	case n < 28:
		return c.pause(one, long)
	case n < 33:
		return fault{"stop", one.name, func(ctx context.Context) error { // how it ends depends on what else is broken
			one.end(syscall.SIGTERM)
			return one.start(t)
		}}
	case n < 40:
		return fault{"server kill", fmt.Sprint("server ", cluster.Port()), func(ctx context.Context) error {
			if err := cluster.Kill(); err != nil {
				return err
			}
			linger(ctx, short/3)
			return cluster.Restart(t.Context())
		}}
	case n < 58:
		link := one.links[random.IntN(len(one.links))]
		return network("database network", fmt.Sprintf("link of %s %p", one.name, link), link, weather, long)
	case n < 70:
		return network("receiver network", fmt.Sprint("road ", road), c.roads[road], weather, short)
	case n < 85:
		return fault{"receiver " + moodName, fmt.Sprint("receiver ", road), func(ctx context.Context) error {
			c.moods[road].Set(mood)
			linger(ctx, short)
			c.moods[road].Set(c.usual(road))
			return nil
		}}
	case n < 88:
		return fault{"url clear", "url", func(ctx context.Context) error { return c.clearURL(ctx, clearing, short) }}
	case n < 95:
		return fault{"outbox stall", "epoch", func(ctx context.Context) error {
			return c.hold(ctx, "BEGIN; SELECT FROM walhook.epoch FOR UPDATE", long)
		}}
	default:
		return fault{"held snapshot", "snapshot", func(ctx context.Context) error {
			return c.hold(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM walhook.event", 10*long)
		}}
	}
}

// mood is a way for a receiver to fail. 410 is none: it would end the feed.
func (c *chaosWorld) mood(random *rand.Rand) (receiver.Behaviour, string) {
	switch random.IntN(6) {
	case 0:
		return receiver.Status(http.StatusInternalServerError), "500"
	case 1:
		return receiver.TooMany(time.Second), "429"
	case 2:
		return receiver.Status(http.StatusServiceUnavailable), "503"
	case 3:
		return receiver.Resetting(), "reset"
	case 4:
		return receiver.Hanging(), "hang"
	}
	return receiver.Slow(between(random, 50*time.Millisecond, 2*time.Second), c.usual(0)), "slow"
}

// pause freezes a process: beyond its lease, if long enough.
func (c *chaosWorld) pause(one *actor, length time.Duration) fault {
	return fault{"pause", one.name, func(ctx context.Context) error {
		if err := one.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		linger(ctx, length)
		return one.signal(syscall.SIGCONT)
	}}
}

// freeze pauses a sender beyond its lease, with attempts in flight whose answers
// it finds when it is back.
func (c *chaosWorld) freeze(one *actor) fault {
	return fault{"freeze", one.name, func(ctx context.Context) error {
		for i, mood := range c.moods {
			mood.Set(receiver.Slow(time.Second, c.usual(i)))
		}
		linger(ctx, 1500*time.Millisecond)
		if err := one.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		for i, mood := range c.moods {
			mood.Set(c.usual(i))
		}
		linger(ctx, 17*time.Second)
		return one.signal(syscall.SIGCONT)
	}}
}

// network makes a link bad for a while. Who was cut off in silence hears of it
// by a reset half of the time.
func network(kind, what string, link *chaos.Proxy, weather chaos.Weather, length time.Duration) fault {
	return fault{kind, what, func(ctx context.Context) error {
		link.Set(weather)
		if weather.Refusing || length%2 == 0 {
			link.Reset()
		}
		linger(ctx, length)
		if weather.Silent && length%3 != 0 {
			link.Reset()
		}
		link.Set(chaos.Weather{})
		return nil
	}}
}

// clearedAccounts is how many accounts clear their URL now and then: few, since
// what was sent to them may have expired.
const clearedAccounts = 2

// clearURL ends an account's feed and starts it again. Whether the source took
// either, its ledger knows.
func (c *chaosWorld) clearURL(ctx context.Context, account int, length time.Duration) error {
	conn, err := pgx.Connect(ctx, c.source.URL)
	if err != nil {
		return nil
	}
	defer conn.Close(context.WithoutCancel(ctx))
	const sql = `UPDATE users SET web_hook_url = nullif($2, '') WHERE id = $1`
	_, _ = conn.Exec(ctx, sql, carrier.AccountID(account), "")
	linger(ctx, length)
	_, _ = conn.Exec(ctx, sql, carrier.AccountID(account), c.urlFor(account))
	return nil
}

// hold keeps a transaction open on the outbox. A server that is down holds by
// itself.
func (c *chaosWorld) hold(ctx context.Context, sql string, length time.Duration) error {
	conn, err := pgx.Connect(ctx, c.outbox)
	if err != nil {
		return nil
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err == nil {
		linger(ctx, length)
	}
	return nil
}

// tally lists what went wrong, for the report.
func (c *chaosWorld) tally() string {
	var kinds []string
	c.counts.Range(func(kind, n any) bool {
		kinds = append(kinds, fmt.Sprintf("%d %s", n.(*atomic.Int64).Load(), kind))
		return true
	})
	slices.SortFunc(kinds, func(a, b string) int { return strings.Compare(a[strings.Index(a, " "):], b[strings.Index(b, " "):]) })
	return strings.Join(kinds, ", ")
}

func between(random *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(random.Int64N(int64(most-least)))
}
