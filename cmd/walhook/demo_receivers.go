package main

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"walhook/internal/carrier"
	"walhook/internal/pgsession"
	"walhook/internal/receiver"
)

// The kinds of receivers that the demo's accounts have.
const (
	classHealthy = "healthy"
	classSlow    = "slow"
	classFlaky   = "flaky"
	classDead    = "dead"
)

// demoClass is the kind of receiver of an account, by its index. The first
// four see every schema at once and are healthy.
func demoClass(index int) string {
	switch {
	case index < 4:
		return classHealthy
	case index%10 == 4 || index%10 == 8:
		return classFlaky
	case index%10 == 6:
		return classSlow
	case index%10 == 7:
		return classDead
	}
	return classHealthy
}

func accountClass(account string) string {
	id, err := strconv.ParseInt(account, 10, 64)
	if err != nil {
		return classHealthy
	}
	return demoClass(int(id - carrier.AccountID(0)))
}

// demoReceivers are the other end: one server for all who answer, and an
// address that refuses connections.
type demoReceivers struct {
	server  *receiver.Server
	dead    *receiver.Refusal
	secrets *pgsession.Pool // on the outbox
	known   sync.Map        // account → secret, as far as they were asked for
}

const (
	slowAnswer   = 150 * time.Millisecond
	flakyPercent = 20
)

func startDemoReceivers(seed uint64, outboxURL string) (*demoReceivers, error) {
	cfg, err := pgxpool.ParseConfig(outboxURL)
	if err != nil {
		return nil, err
	}
	pool, err := pgsession.NewPool(context.Background(), cfg)
	if err != nil {
		return nil, err
	}
	r := &demoReceivers{secrets: pool}
	r.server, err = receiver.Start(receiver.Options{
		Behave: func(account string) receiver.Behaviour {
			switch accountClass(account) {
			case classSlow:
				return receiver.Slow(slowAnswer, receiver.Healthy())
			case classFlaky:
				return receiver.Flaky(seed, flakyPercent, receiver.Healthy())
			}
			return receiver.Healthy()
		},
		Secret: r.secret,
	})
	if err == nil {
		r.dead, err = receiver.Refuse()
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *demoReceivers) close() {
	if r.server != nil {
		_ = r.server.Close() // what it got is read
	}
	if r.dead != nil {
		_ = r.dead.Close()
	}
	r.secrets.Close()
}

// url is the web_hook_url of the account with an index.
func (r *demoReceivers) url(index int) string {
	account := strconv.FormatInt(carrier.AccountID(index), 10)
	if demoClass(index) == classDead {
		return r.dead.URL(account)
	}
	return r.server.URL(account)
}

// secret looks an account's signing secret up, once, as its user would be told
// it.
func (r *demoReceivers) secret(account string) string {
	if secret, ok := r.known.Load(account); ok {
		return secret.(string)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var secret string
	const sql = "SELECT secret FROM walhook.endpoint WHERE account = $1"
	if err := r.secrets.QueryRow(ctx, sql, account).Scan(&secret); err != nil {
		return "" // counted as a bad signature
	}
	r.known.Store(account, secret)
	return secret
}

func (r *demoReceivers) verify(expected []carrier.Expected) receiver.Report {
	return receiver.Verify(expected, r.server.Deliveries(), receiver.Terms{
		Class:   accountClass,
		MayWait: func(account string) bool { return accountClass(account) == classDead },
	})
}
