package main

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"walhook/cdc"
	"walhook/cdc/source"
	"walhook/outbox"
	"walhook/outbox/admin"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// noSecretKey is what setup warns of before it stores the first signing secret.
const noSecretKey = "--secret-key is not set: signing secrets are stored in clear; 'head -c 32 /dev/urandom | base64' makes a key for every walhook process, " +
	"and 'walhook endpoints reseal' encrypts with it what is stored by then"

// lacksSecretKey is what it warns of where other processes have a key.
const lacksSecretKey = "--secret-key is not set, and the outbox holds secrets that a key encrypted: set the key of the other walhook processes here, too. " +
	"Without it this one stores new secrets in clear"

// prepare makes source and outbox ready: migrations, publication, replica identities,
// slot and initial snapshot. It leaves unchanged what exists already. If another catalog
// is in force, prepare asks the publisher to adopt the one of from, and reports that.
func prepare(ctx context.Context, from source.Config, store *outbox.Store, outboxURL string, over source.Over, log *zap.Logger) (asked bool, err error) {
	plan, err := source.PlanSetup(ctx, from)
	if err != nil {
		return false, err
	}
	if !store.Access().Secrets.HasKey() {
		warning := noSecretKey
		if store.CheckMigrated(ctx) == nil && errors.Is(admin.New(store).CheckKey(ctx), admin.ErrWrongKey) {
			warning = lacksSecretKey
		}
		log.Warn(warning)
	}
	if plan.PublishesEverything() {
		system, database, err := store.Identity(ctx)
		if err == nil {
			err = plan.PublishesOutbox(from, system, database)
		}
		if err != nil {
			return false, err
		}
	}
	if err := outbox.Migrate(ctx, outboxURL); err != nil {
		return false, err
	}
	current, stored := from, schemas.Checkpoint{}
	if over == source.Refuse {
		if stored, err = store.Checkpoint(ctx); err != nil {
			return false, err
		}
		if current.Catalog, err = catalogInForce(ctx, store, from.Catalog, stored); err != nil {
			return false, err
		}
		if err := source.CheckPublication(ctx, current, stored); err != nil {
			return false, err
		}
	}
	if err := plan.Apply(ctx, from, store, log); err != nil {
		return false, err
	}
	// An interrupted snapshot may be that of a gap.
	if over == source.Reconcile || over == source.Refuse && stored.Source == (schemas.Source{}) {
		by, err := catalogOfGap(ctx, from, store)
		if err != nil {
			return false, err
		}
		by.log(log)
		current.Catalog = by.catalog
	}
	if over != source.Refuse || stored.Source == (schemas.Source{}) {
		if err := source.CheckAccount(ctx, current); err != nil {
			return false, err
		}
	}
	if err := source.Snapshot(ctx, current, store.Publisher(current.Catalog), over, log); err != nil {
		return false, err
	}
	return !current.Catalog.Same(from.Catalog), store.AskCatalog(ctx, from.Catalog)
}

// catalogInForce returns the catalog by which the source is followed; before the first
// setup, the one that is given. An outbox of an older walhook has stored none: then it is
// the given one if its accounts, tables, keys and owners are those that were set up.
func catalogInForce(ctx context.Context, store *outbox.Store, given *catalog.Catalog, stored schemas.Checkpoint) (*catalog.Catalog, error) {
	inForce, err := store.CatalogInForce(ctx)
	if err != nil || inForce != nil {
		return inForce, err
	}
	if stored.Source != (schemas.Source{}) && stored.Source.Catalog != given.Fingerprint() {
		return nil, &source.Fault{
			Problem: "the catalog's accounts, tables, keys or owners differ from those that were set up by an older walhook, which did not store its catalog",
			Fix: "start 'walhook run' once with the former catalog file, which stores it, then run 'walhook setup' with the new one; " +
				"or run 'walhook setup --accept-gap' to start over",
		}
	}
	return given, nil
}

// adoptPoll is how often setup looks whether the catalog is in force.
const adoptPoll = 200 * time.Millisecond

// adopt waits until the catalog of from is in force. It publishes itself while no other
// process does.
func adopt(ctx context.Context, from source.Config, store *outbox.Store, log *zap.Logger) error {
	wanted := from.Catalog
	former, err := store.CatalogInForce(ctx)
	if err != nil {
		return err
	}
	reader, err := cdc.New(from, store.Publisher(cmp.Or(former, wanted)), log, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- reader.Run(reading) }()
	var logged string
	for {
		// In this order: what is adopted between the two is in force.
		pending, note, err := store.PendingCatalog(ctx)
		var inForce *catalog.Catalog
		if err == nil {
			inForce, err = store.CatalogInForce(ctx)
		}
		if inForce != nil && inForce.Same(wanted) {
			stop()
			return <-ended
		}
		switch {
		case err != nil && !source.IsUnreachable(err):
			return err
		case err == nil && (pending == nil || !pending.Same(wanted)):
			return errors.New("another setup has asked for another catalog meanwhile: run this again if this one is to be in force")
		case note != "" && note != logged:
			logged = note
			log.Warn("the changed catalog is not in force yet", zap.String("reason", note))
		}
		select {
		case err := <-ended:
			if ctx.Err() != nil {
				return errStillPending
			}
			return err
		case <-time.After(adoptPoll):
		}
	}
}

var errStillPending = errors.New("the changed catalog is not in force yet: the process that publishes adopts it as soon as it can, and 'walhook setup' waits for that again")
