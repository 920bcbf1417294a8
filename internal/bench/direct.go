package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/cdc"
	"walhook/cdc/source"
	"walhook/internal/carrier"
	"walhook/internal/pgsession"
	"walhook/outbox"
	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/sender/deliver"
)

// directJob is the floor of latency: walhook's reader hands each change, rendered
// and signed, straight to walhook's HTTP client. Nothing is stored, so a crash loses
// what was under way and a failed delivery is an error of the run.
type directJob struct {
	Source     string // database URL
	Slot       string
	Checkpoint schemas.Checkpoint // of a slot that nobody has read
	Accounts   []directAccount
	Workers    int // requests at a time; an account's changes always go to the same one
	Version    string
}

type directAccount struct{ ID, URL, Secret string }

// directAnswer says that the reader is running.
type directAnswer struct{}

// run reads until ctx ends, or until something fails.
func (j directJob) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	destination, err := deliver.NewHTTP(deliver.Config{Version: j.Version, AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		return err
	}
	defer destination.Close()
	cfg := source.Config{URL: j.Source, Slot: j.Slot, Catalog: catalog.Carrier()}
	store := &directStore{
		countingStore: countingStore{checkpoint: j.Checkpoint}, routed: cfg.Catalog,
		plans: map[*schemas.Relation]*catalog.Plan{}, endpoints: map[string]*directEndpoint{},
	}
	var workers sync.WaitGroup
	defer workers.Wait()
	queues := make([]chan directEvent, j.Workers)
	for i := range queues {
		queues[i] = make(chan directEvent, 64)
		workers.Go(func() {
			if err := deliverAll(ctx, destination, queues[i]); err != nil {
				stop(err)
			}
		})
	}
	for i, a := range j.Accounts {
		store.endpoints[a.ID] = &directEndpoint{
			endpoint: outbox.Endpoint{ID: int64(i) + 1, Account: a.ID, Revision: 1, URL: a.URL, State: outbox.EndpointActive, Secrets: []string{a.Secret}},
			queue:    queues[i%len(queues)],
		}
	}
	reader, err := cdc.New(cfg, store, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	err = reader.Run(ctx)
	stop(nil)
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// directStore delivers what it is to store.
type directStore struct {
	countingStore
	routed    *catalog.Catalog
	plans     map[*schemas.Relation]*catalog.Plan
	endpoints map[string]*directEndpoint // by account
	scratch   []byte
}

type directEndpoint struct {
	endpoint outbox.Endpoint
	queue    chan<- directEvent
}

type directEvent struct {
	to    *directEndpoint
	event outbox.Event
}

// Append implements [cdc.Store]. It hands over what it is given, and says that it is
// stored.
func (s *directStore) Append(ctx context.Context, batch schemas.Batch) error {
	for i := range batch.Changes {
		if err := s.hand(ctx, &batch.Changes[i]); err != nil {
			return err
		}
	}
	return s.countingStore.Append(ctx, batch)
}

func (s *directStore) hand(ctx context.Context, c *schemas.Change) error {
	if c.Relation == nil || c.Kind != schemas.Insert {
		return nil // the load inserts records, and nothing else
	}
	plan := s.plans[c.Relation]
	if plan == nil {
		plan = s.routed.Bind(c.Relation)
		s.plans[c.Relation] = plan
	}
	if plan.Schema == nil {
		return nil
	}
	account, ok := plan.OwnerKey(c.New)
	to := s.endpoints[account]
	if !ok || to == nil {
		return fmt.Errorf("direct: a change of account %q, which has no endpoint", account)
	}
	body, scratch, err := plan.AppendEnvelope(nil, s.scratch, c.Kind, c.New, false)
	s.scratch = scratch
	if err != nil {
		return err
	}
	event := outbox.Event{
		ID: 1, Endpoint: to.endpoint.ID, Revision: to.endpoint.Revision, WebhookID: c.Position.WebhookID(0),
		Schema: plan.Schema.Name, Type: "insert", CommittedAt: c.CommittedAt, Body: body,
	}
	select {
	case to.queue <- directEvent{to, event}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// deliverAll makes the attempts of a worker, one after the other.
func deliverAll(ctx context.Context, destination deliver.Destination, events <-chan directEvent) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			result := destination.Deliver(ctx, e.to.endpoint, e.event)
			if result.Outcome != deliver.Delivered && ctx.Err() == nil {
				return fmt.Errorf("direct: a delivery to account %s came to %s (%s)", e.to.endpoint.Account, result.Outcome, result.Reason)
			}
		}
	}
}

// direct is the helper process: it begins the job on in, answers, and goes on until
// in ends.
func direct(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	asked := answers(in, out, func(job directJob) (directAnswer, error) {
		go func() {
			err := job.run(ctx)
			ended <- err
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1) // whoever waits for a delivery sees that the process is gone
			}
		}()
		return directAnswer{}, nil
	})
	stop()
	return errors.Join(asked, <-ended)
}

// runDirect starts the helper in walhook's place, from the present end of the WAL on.
func (w *world) runDirect(ctx context.Context) (stop func() error, err error) {
	slot := w.name + "_direct"
	job := directJob{Source: w.source, Slot: slot, Workers: w.b.options.Concurrency, Version: w.b.options.Version}
	if job.Checkpoint, err = decodeSlot(ctx, w.source, slot); err != nil {
		return nil, err
	}
	if job.Accounts, err = w.directAccounts(ctx); err != nil {
		return nil, err
	}
	h, err := w.b.options.Walhook.help(w.b.dir, helpDirect)
	if err != nil {
		return nil, err
	}
	w.walhook = h.child
	stop = func() error {
		w.walhook = nil
		return h.end(ctx)
	}
	return stop, h.ask(ctx, job, &directAnswer{})
}

// directAccounts are the accounts with their URLs, and with the secrets that the
// outbox has for them, so that a delivery is checked as walhook's are.
func (w *world) directAccounts(ctx context.Context) ([]directAccount, error) {
	conn, err := pgsession.Connect(ctx, w.outbox)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	accounts := make([]directAccount, w.accounts)
	for i := range accounts {
		accounts[i] = directAccount{ID: fmt.Sprint(carrier.AccountID(i)), URL: w.b.healthyURL(i)}
	}
	rows, err := conn.Query(ctx, `SELECT account, secret FROM walhook.endpoint WHERE webhook = 'account'`)
	if err != nil {
		return nil, err
	}
	secrets := map[string]string{}
	var account, secret string
	if _, err := pgx.ForEachRow(rows, []any{&account, &secret}, func() error { secrets[account] = secret; return nil }); err != nil {
		return nil, err
	}
	for i := range accounts {
		accounts[i].Secret = secrets[accounts[i].ID]
	}
	return accounts, nil
}
