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

// The kinds of receivers of the demo's accounts.
const (
	classHealthy = "healthy"
	classSlow    = "slow"
	classFlaky   = "flaky"
	classDead    = "dead"
)

// demoKinds lists them as people see them.
var demoKinds = []string{classHealthy, classSlow, classFlaky, classDead}

// demoClass returns the kind of receiver of an account, by its index. The first four
// get events of every schema early and are healthy.
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

// demoReceivers are the demo's receivers: one server for all that answer, and an
// address that refuses connections.
type demoReceivers struct {
	server  *receiver.Server
	dead    *receiver.Refusal
	secrets *pgsession.Pool // on the outbox
	known   sync.Map        // account → secret, of those read so far
	portal  *demoPortal     // nil for none
}

const (
	slowAnswer   = 150 * time.Millisecond
	flakyPercent = 20
)

// startDemoReceivers starts them. With a portal, the account that it shows has a receiver
// that is down for a while now and then; portal may be nil.
func startDemoReceivers(seed uint64, outboxURL string, portal *demoPortal) (*demoReceivers, error) {
	cfg, err := pgxpool.ParseConfig(outboxURL)
	if err != nil {
		return nil, err
	}
	pool, err := pgsession.NewPool(context.Background(), cfg, &pgsession.Guard{})
	if err != nil {
		return nil, err
	}
	r := &demoReceivers{secrets: pool, portal: portal}
	r.server, err = receiver.Start(receiver.Options{
		Behave: func(account string) receiver.Behaviour {
			if portal != nil && account == portalAccount() {
				return portal.behave(receiver.Healthy())
			}
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
		_ = r.server.Close() // judge has read its deliveries
	}
	if r.dead != nil {
		_ = r.dead.Close()
	}
	r.secrets.Close()
}

// url returns the web_hook_url of the account with an index.
func (r *demoReceivers) url(index int) string {
	account := strconv.FormatInt(carrier.AccountID(index), 10)
	if demoClass(index) == classDead {
		return r.dead.URL(account)
	}
	return r.server.URL(account)
}

// secret reads an account's signing secret, once, as `endpoints secret` prints it.
func (r *demoReceivers) secret(account string) string {
	if secret, ok := r.known.Load(account); ok {
		return secret.(string)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var secret string
	const sql = "SELECT secret FROM walhook.endpoint WHERE account = $1 AND webhook = 'account'"
	if err := r.secrets.QueryRow(ctx, sql, account).Scan(&secret); err != nil {
		return "" // the report counts a bad signature
	}
	r.known.Store(account, secret)
	return secret
}

// verify calls the referee. Only what is for dead receivers may wait, or, after an early
// end, what is for anybody.
func (r *demoReceivers) verify(expected []carrier.Expected, early bool) receiver.Report {
	return receiver.Verify(expected, r.server.Deliveries(), receiver.Terms{
		Class: accountClass,
		MayWait: func(account string) bool {
			return early || accountClass(account) == classDead || r.portal != nil && account == portalAccount()
		},
	})
}
