package outbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/outbox/route"
	"walhook/schemas"
)

const (
	// publishTimeout bounds an append, and how long a take-over gets no answer: a process
	// that gets none for so long, because the network swallows it, gives the slot to the
	// standby. The server gives up each statement of an append earlier.
	publishTimeout = statementTimeout * 3 / 2

	// besideTimeout bounds what the publisher does beside its appends, which wait for
	// it, and appendLeast is what such a wait leaves an append in any case.
	besideTimeout = 4 * time.Second
	appendLeast   = besideTimeout

	// appendTries is how often a batch is tried that certainly is not stored, and
	// appendPause how long after the first time; it doubles.
	appendTries = 5
	appendPause = 20 * time.Millisecond
)

// Append stores a batch in one transaction: its events, what it teaches of
// accounts and owners, and the position. Where that fails for a reason that passes
// (a deadlock, a session that ends, a statement that takes too long) and certainly
// is not stored, the same batch is tried again. A change that the server refuses
// to store is listed as unrouted, and costs no other change anything. After an
// error it is not known whether the batch was stored; TakeOver shows it. All tries
// together, and the wait for what else this publisher does, take publishTimeout; what
// takes longer is only to read all webhooks, as long as they arrive.
func (p *Publisher) Append(ctx context.Context, batch schemas.Batch) error {
	end := time.Now().Add(publishTimeout)
	p.mu.Lock()
	defer p.mu.Unlock()
	if least := time.Now().Add(appendLeast); end.Before(least) {
		end = least
	}
	bounded, cancel := p.within(ctx, time.Until(end), errAppendTimeout)
	defer cancel()
	pause, done := appendPause, 0
	for try := 1; ; try++ {
		err := p.tryAppend(ctx, bounded, &batch, &done)
		if err == nil {
			return nil
		}
		if try == appendTries || bounded.Err() != nil || errors.Is(err, errUncertain) || !IsBusy(err) {
			p.live = false
			return timedOut(bounded, err)
		}
		select {
		case <-bounded.Done():
		case <-time.After(pause + rand.N(pause)):
		}
		pause *= 2
	}
}

// tryAppend stores the changes of a batch from done on; done learns how far they
// are stored. bounded is ctx with the end of this append; what isolates a change has
// bounds of its own, since it gets on.
func (p *Publisher) tryAppend(ctx, bounded context.Context, batch *schemas.Batch, done *int) error {
	part := route.Part{First: *done, End: len(batch.Changes)}
	fence, err := p.prepare(bounded, batch.Changes, &part)
	if err != nil {
		return err
	}
	plan := route.Route(p.view, batch.Changes, part, nil, p.spare)
	plan.Reached = reached(batch, part.End, p.flush)
	err = p.commitBehind(bounded, fence, plan)
	p.spare = plan
	switch {
	case err == nil:
		*done = part.End
		return nil
	case errors.Is(err, errWebhooksMoved): // nothing is stored
		p.followsFirst = followsFor
		return p.tryAppend(ctx, bounded, batch, done)
	case isDataFault(err) && part.First < part.End:
		// Where nothing was sent, the fence has not said that the webhooks are those.
		p.followsFirst = max(p.followsFirst, 1)
		if _, err := p.prepare(bounded, batch.Changes, &part); err != nil {
			return err
		}
		return p.appendIsolated(ctx, batch, part, err, done)
	}
	return fmt.Errorf("append %d changes up to %s: %w", part.End-part.First, plan.Reached.Position, err)
}

// followsFor is how many appends read the webhooks first once an append has met others
// than it was routed by: another try costs as much as some twenty such questions.
const followsFor = 20

// prepare reads what routing may ask for, and says which fence the append needs: it sees
// every change of webhooks that was committed before it began. Either the publisher reads
// them now, or the fence says that there is none.
func (p *Publisher) prepare(ctx context.Context, changes []schemas.Change, part *route.Part) (fence, error) {
	p.rotate(ctx)
	behind := p.routedFence()
	if p.followsFirst > 0 || p.view.WebhooksVersion == route.UnknownVersion {
		p.followsFirst = max(p.followsFirst-1, 0)
		if err := p.followWebhooks(ctx); err != nil {
			return fence{}, err
		}
		behind = p.fence()
	}
	if err := p.fetch(ctx, changes); err != nil {
		return fence{}, err
	}
	part.Now = time.Time{}
	if !p.view.NeedsClock(changes) {
		return behind, nil
	}
	var err error
	part.Now, err = p.clock(ctx)
	return behind, err
}

// reached is the position that the first changes of a batch reach. Of the
// transaction that they end in no more is known, unless it is the batch's last.
func reached(batch *schemas.Batch, changes int, flush schemas.LSN) *route.Reached {
	if changes == len(batch.Changes) {
		return &route.Reached{Position: batch.Position, Xid: batch.Xid, CommittedAt: batch.CommittedAt, Flush: batch.Flush, NoMessages: batch.NoMessages}
	}
	at := &route.Reached{Position: batch.Changes[changes-1].Position, Flush: flush, NoMessages: batch.NoMessages}
	if at.Position.Commit == batch.Position.Commit {
		at.Xid, at.CommittedAt = batch.Xid, batch.CommittedAt
	}
	return at
}

var errAppendTimeout = errors.New("append: timed out")

// An isolated transaction ends after so many changes that are set aside, or so
// long, and another one continues: a timeout must not lose what it stored.
const (
	isolatedFaults = 100
	isolatedTime   = publishTimeout / 2
)

// isolation is how far the isolation of a part of a batch is.
type isolation struct {
	batch *schemas.Batch
	todo  []route.Part // in order
	cause error        // the last refusal

	plans  []*route.Plan // that the transaction holds
	aside  []aloneChange
	stored int // changes of the batch
}

// aloneChange is a change that cannot be stored.
type aloneChange struct {
	change int
	cause  error
}

// appendIsolated stores a part of a batch that the server refuses to store because
// of its data, and leaves out what is at fault. One transaction tries halves, each
// behind a savepoint, until the change is alone; of that it stores as much as the
// server takes, so that what follows goes to the right accounts.
func (p *Publisher) appendIsolated(ctx context.Context, batch *schemas.Batch, part route.Part, cause error, done *int) error {
	i := &isolation{batch: batch, todo: halves(part), cause: cause, stored: *done}
	for len(i.todo) > 0 {
		if err := p.isolateSome(ctx, i); err != nil {
			return fmt.Errorf("append %d changes without those that cannot be stored: %w", len(batch.Changes)-*done, err)
		}
		*done = i.stored
	}
	return nil
}

// halves are the parts of one that was refused: two, or the same change with less
// of it.
func halves(part route.Part) []route.Part {
	if part.End-part.First == 1 {
		part.Depth++
		return []route.Part{part}
	}
	first, second := part, part
	first.End = part.First + (part.End-part.First)/2
	second.First = first.End
	return []route.Part{first, second}
}

// isolateSome stores the first of the parts that are left in one transaction.
func (p *Publisher) isolateSome(ctx context.Context, i *isolation) error {
	ctx, cancel := context.WithTimeoutCause(ctx, publishTimeout, errAppendTimeout)
	defer cancel()
	i.plans, i.aside = nil, nil
	listed, began, position := p.listing, time.Now(), p.position
	tx := &transaction{
		// No constraint is left to the COMMIT, where its fault would be nobody's.
		first: func(b *pgx.Batch) { b.Queue("SET CONSTRAINTS ALL IMMEDIATE") },
		work: func(ctx context.Context, conn *pgx.Conn) (err error) {
			for len(i.todo) > 0 && len(i.aside) < isolatedFaults && (len(i.plans) == 0 || time.Since(began) < isolatedTime) {
				if listed, err = p.tryPart(ctx, conn, i, listed); err != nil {
					return err
				}
			}
			return nil
		},
		fill: func(b *pgx.Batch) {
			last := i.plans[len(i.plans)-1]
			last.Reached = reached(i.batch, i.stored, p.flush)
			p.queuePosition(b, last, &position)
		},
	}
	if err := rewound(tx.outcome(p.run(ctx, tx))); err != nil {
		return err
	}
	p.listing, p.position = listed, position
	p.apply(i.plans...)
	for _, one := range i.aside {
		p.store.setAside(ctx, loopAppend, i.batch.Changes[one.change].Position.String(), 0, asideUnstorable, one.cause)
	}
	return nil
}

// tryPart writes the first part that is left. A refusal because of data leaves the
// transaction as it was, and halves the part.
func (p *Publisher) tryPart(ctx context.Context, conn *pgx.Conn, i *isolation, listed listing) (listing, error) {
	part := i.todo[0]
	var earlier *route.Plan
	if n := len(i.plans); n > 0 {
		earlier = i.plans[n-1]
	}
	plan := route.Route(p.view, i.batch.Changes, part, earlier, nil)
	w := &planWrite{store: p.store, plan: plan, upsert: true}
	w.listing, w.unrouted = listed.bound(plan.Unrouted, time.Now())
	tx := w.transaction()
	tx.savepoint = true
	err := tx.runOn(ctx, conn)
	switch {
	case err == nil:
		i.todo, i.plans, i.stored = i.todo[1:], append(i.plans, plan), part.End
		if part.Depth != route.Whole {
			i.aside = append(i.aside, aloneChange{part.First, i.cause})
		}
		return w.listing, nil
	case !isDataFault(err) || part.Depth == route.Unlisted:
		return listed, err
	}
	i.todo = append(halves(part), i.todo[1:]...)
	if part.Depth == route.Whole {
		i.cause = err
	}
	_, err = conn.Exec(ctx, "ROLLBACK TO SAVEPOINT part")
	return listed, err
}
