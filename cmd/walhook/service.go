package main

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"walhook/api"
	"walhook/cdc"
	"walhook/cdc/source"
	"walhook/internal/httpd"
	"walhook/internal/pgsession"
	"walhook/internal/retry"
	"walhook/outbox"
	"walhook/outbox/admin"
	"walhook/portal"
	"walhook/schemas/catalog"
	"walhook/sender"
	"walhook/sender/deliver"
)

// service is one running walhook: the parts of its role, on one outbox.
type service struct {
	publish, send, subscribe bool
	source                   source.Config
	outbox                   outbox.Config
	sender                   sender.Config
	listen                   string   // "" for none
	metricsListen            string   // "" serves /metrics on listen
	adminToken               string   // "" refuses every call of the API
	portalURL                *url.URL // nil for no portal
	portalBrand              portal.Brand
	portalFrameAncestors     []string
	trustedProxies           []netip.Prefix
	tlsCert, tlsKey          string // "" for plain HTTP
	trace                    traceConfig
	// setup prepares an unprepared source instead of refusing it.
	setup bool
	// acceptAccounts lets setup adopt a catalog that ends accounts.
	acceptAccounts bool
	// console is what the operator's pages ask of this process; nil for nothing.
	console *console
}

// run runs until ctx ends, which is no error. It serves /healthz from the start, also
// while it waits for a database.
func (s service) run(ctx context.Context, log *zap.Logger) error {
	logStop := context.AfterFunc(ctx, func() { log.Info("shutting down, draining attempts in flight") })
	defer logStop()
	registry := newRegistry()
	listeners := httpd.NewListeners(log, registry)
	s.warnOfDescriptors(log)
	store, err := outbox.Open(ctx, s.outbox, log, registry)
	if err != nil {
		return usageError{err}
	}
	defer store.Close()
	var reader *cdc.Reader
	var publisher *outbox.Publisher
	if s.publish {
		publisher = store.Publisher(s.source.Catalog)
		if reader, err = cdc.New(s.source, publisher, log, registry); err != nil {
			return usageError{err}
		}
	}
	var deliverer *sender.Sender
	if s.send {
		if s.trace.endpoint != "" {
			traces, err := newTracing(ctx, s.trace, log)
			if err != nil {
				return usageError{err}
			}
			s.sender.OnAttempt = traces.attempt
			defer func() {
				if err := traces.close(ctx); err != nil {
					log.Warn("last traces not sent")
				}
			}()
		}
		if deliverer, err = sender.New(s.sender, sender.Outbox(store), log, registry); err != nil {
			return usageError{err}
		}
	}

	asked := ctx
	group, ctx := errgroup.WithContext(ctx)
	prepared := make(chan struct{})
	group.Go(func() error {
		tuneCollector(ctx)
		return nil
	})
	if s.listen != "" {
		var subscriptions, pages http.Handler
		if s.subscribe {
			tests, err := deliver.NewHTTP(s.sender.HTTP)
			if err != nil {
				return usageError{err}
			}
			defer tests.Close()
			feeds := api.NewFeeds(store, log, registry)
			group.Go(func() error { return feeds.Run(ctx) })
			if subscriptions, err = api.Subscriptions(s.apiConfig(store, tests, feeds), log); err != nil {
				return usageError{err}
			}
			if s.portalURL != nil {
				if pages, err = s.portal(store, subscriptions, log); err != nil {
					return usageError{err}
				}
				pages = whenPrepared(prepared, pages)
			}
			subscriptions = whenPrepared(prepared, subscriptions)
		}
		var metrics prometheus.Gatherer
		if s.metricsListen == "" {
			metrics = registry
		}
		serving := httpd.Config{Setting: "listen", Address: s.listen, Trusted: s.trustedProxies,
			Handler: withPortal(pages, api.Handler(s.checks(store, reader, prepared), metrics, subscriptions))}
		if s.tlsCert != "" {
			if serving.Certificate, err = httpd.ReadCertificate(s.tlsCert, s.tlsKey, log); err != nil {
				return usageError{err}
			}
		}
		group.Go(func() error { return serve(ctx, listeners, serving, log) })
	}
	if s.metricsListen != "" {
		group.Go(func() error {
			return serve(ctx, listeners, httpd.Config{Setting: "metrics-listen", Address: s.metricsListen, Handler: api.Metrics(registry),
				Bounds: httpd.BoundsFor(httpd.Descriptors() / 4)}, log)
		})
	}
	group.Go(func() error { return store.Measure(ctx) })
	group.Go(func() error {
		if err := s.ready(ctx, store, log); err != nil || ctx.Err() != nil {
			return err
		}
		close(prepared)
		group.Go(func() error { return store.Maintain(ctx) })
		if s.publish || s.send || s.subscribe {
			group.Go(func() error { return store.Listen(ctx, s.send || s.subscribe) })
		}
		if s.publish {
			group.Go(func() error { return s.read(ctx, reader, log) })
			group.Go(func() error { return publisher.Run(ctx) })
			group.Go(func() error { return publisher.Resync(ctx, snapshots{s.source, log}) })
		}
		if s.send {
			if err := admin.New(store).CheckKey(ctx); errors.Is(err, admin.ErrWrongKey) {
				log.Error("no secret can be decrypted, every endpoint is held", zap.Error(err))
			}
			group.Go(func() error { return deliverer.Run(ctx) })
		}
		return nil
	})
	err = group.Wait()
	if _, gap := errors.AsType[*source.GapError](err); err != nil && !gap && asked.Err() != nil && !errors.Is(context.Cause(ctx), err) {
		// The process was asked to stop and has stopped: what it could not finish is
		// not an error.
		if !isClosed(prepared) {
			log.Info("stopped before anything was read or sent", zap.Error(err))
			return nil
		}
		log.Warn("stopped before everything was stored: some events may be sent again", zap.Error(err))
		return nil
	}
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// The waits between an error of the source and the next try, while senders continue.
const (
	firstReadWait = 2 * time.Second
	lastReadWait  = 30 * time.Second
)

// read reads the source's WAL. If a source that it has read before refuses the role,
// its password or a certificate, read tries again, as for a source that is down. In a
// process that also sends, it tries again after any error of the source, so that
// sending continues. A gap ends the process, and so does a source that is not prepared
// or has never been read.
func (s service) read(ctx context.Context, reader *cdc.Reader, log *zap.Logger) error {
	backoff := retry.Backoff{Min: firstReadWait, Max: lastReadWait}
	for {
		began := time.Now()
		err := reader.Run(ctx)
		if errors.Is(err, cdc.ErrOtherPosition) {
			return usageError{err}
		}
		_, fault := errors.AsType[*source.Fault](err)
		if fault && ctx.Err() != nil {
			return nil
		}
		if refused := pgsession.IsRefused(err); err == nil || !fault || !s.send && !(refused && reader.Began()) || !reader.Began() && !refused {
			return err
		}
		if time.Since(began) > time.Minute {
			backoff.Reset()
		}
		wait := backoff.Next()
		log.Error("reading the WAL failed, retrying; stored events are still sent",
			zap.Duration("retry_in", wait), zap.Error(err))
		if !reader.Pause(ctx, wait) {
			return nil
		}
	}
}

func (s service) apiConfig(store *outbox.Store, tests *deliver.HTTP, feeds *api.Feeds) api.Config {
	portalURL := ""
	if s.portalURL != nil {
		portalURL = s.portalURL.String()
	}
	return api.Config{
		PortalURL: portalURL,
		Admin:     admin.New(store), Destination: tests, Feeds: feeds, FeedReaders: httpd.BoundsFor(httpd.Descriptors()).Total / 2, AdminToken: s.adminToken, Offer: offerInForce(store, s.source.Catalog),
		Version: readBuild().version, TestTimeout: s.sender.HTTP.AttemptTimeout, TrustedProxies: s.trustedProxies,
	}
}

// offerInForce returns what the catalog in force offers to webhooks. given stands for it
// before the first setup.
func offerInForce(store *outbox.Store, given *catalog.Catalog) func(context.Context) *api.Offer {
	type offer struct {
		of *catalog.Catalog
		*api.Offer
	}
	var last atomic.Pointer[offer]
	follower := store.FollowCatalog(given)
	return func(ctx context.Context) *api.Offer {
		now := follower.Catalog(ctx)
		if known := last.Load(); known != nil && known.of == now {
			return known.Offer
		}
		made := &offer{now, &api.Offer{Hooks: eventHooks(now), EventTypes: sync.OnceValue(now.EventTypes)}}
		for _, schema := range now.Schemas {
			made.Schemas = append(made.Schemas, schema.Name)
		}
		last.Store(made)
		return made.Offer
	}
}

// checks returns the conditions of /readyz.
func (s service) checks(store *outbox.Store, reader *cdc.Reader, prepared <-chan struct{}) []api.Check {
	checks := []api.Check{
		{Name: "start", Ready: func(context.Context) error {
			select {
			case <-prepared:
				return nil
			default:
				return errors.New("waiting for the outbox")
			}
		}},
		{Name: "outbox", Ready: func(ctx context.Context) error {
			if store.Ping(ctx) != nil {
				return errors.New("does not answer") // the reason may name hosts, so only the logs have it
			}
			return nil
		}},
	}
	if s.send {
		checks = append(checks, api.Check{Name: "secrets", Ready: func(ctx context.Context) error {
			if err := admin.New(store).CheckKey(ctx); errors.Is(err, admin.ErrWrongKey) {
				return err
			}
			return nil // the check of the outbox reports other errors
		}})
	}
	if reader != nil {
		checks = append(checks, api.Check{Name: "source", Ready: sourceReady(reader)})
	}
	return checks
}

// whenPrepared answers 503 until the outbox is ready, and then passes requests on.
func whenPrepared(prepared <-chan struct{}, then http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-prepared:
			then.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "5")
			http.Error(w, "waiting for the outbox", http.StatusServiceUnavailable)
		}
	})
}

// ready waits for an outbox that does not answer yet, and prepares the source if
// --setup is given.
func (s service) ready(ctx context.Context, store *outbox.Store, log *zap.Logger) error {
	err := wait(ctx, log, "outbox", func() error {
		if s.setup && s.publish {
			if !s.acceptAccounts {
				if err := checkAccounts(ctx, s.source, store); err != nil {
					return err
				}
			}
			_, err := prepare(ctx, s.source, store, s.outbox.URL, source.Refuse, log)
			return err
		}
		return store.CheckMigrated(ctx)
	})
	if err != nil || ctx.Err() != nil {
		return outboxFault(err)
	}
	if err := store.MakePartitions(ctx); err != nil && ctx.Err() == nil {
		log.Warn("creating partitions of the outbox failed, maintenance will retry", zap.Error(err))
	}
	return nil
}

// prepareNow prepares the source before the service runs.
func (s service) prepareNow(ctx context.Context, log *zap.Logger) error {
	store, err := outbox.Open(ctx, s.outbox, log, prometheus.NewRegistry())
	if err != nil {
		return usageError{err}
	}
	defer store.Close()
	_, err = prepare(ctx, s.source, store, s.outbox.URL, source.Refuse, log)
	return outboxFault(err)
}

const (
	firstWait = 500 * time.Millisecond
	lastWait  = 10 * time.Second
)

// wait calls f until its database answers, even with an error, and so waits for a
// server that does not run yet.
func wait(ctx context.Context, log *zap.Logger, what string, f func() error) error {
	caller, backoff := retry.NewOutage(what).Caller(), retry.Backoff{Min: firstWait, Max: lastWait}
	for {
		err := f()
		if ctx.Err() != nil {
			return err
		}
		if err == nil || !source.IsUnreachable(err) {
			caller.Answered(log)
			return err
		}
		pause := backoff.Next()
		caller.Failed(log, "prepare", pause, err)
		if retry.Pause(ctx, pause) != nil {
			return nil
		}
	}
}

func sourceReady(reader *cdc.Reader) func(context.Context) error {
	return func(context.Context) error {
		if state := reader.State(); state == cdc.Connecting || state == cdc.Unreadable {
			return errors.New(state.String())
		}
		if why := reader.HeldBack(); why != "" {
			return errors.New("the source withholds changes: " + why)
		}
		return nil
	}
}

// shutdownTimeout bounds how long running requests of the API may take after the
// signal to stop.
const shutdownTimeout = 3 * time.Second

// serve answers on an address until ctx ends.
func serve(ctx context.Context, listeners *httpd.Listeners, cfg httpd.Config, log *zap.Logger) error {
	server, err := listeners.Listen(ctx, cfg)
	if err != nil {
		return err
	}
	log.Info("listening", zap.Stringer("address", server.Addr()), zap.String("setting", cfg.Setting), zap.Bool("tls", cfg.Certificate != nil))
	return server.Serve(ctx, shutdownTimeout)
}

// warnOfDescriptors warns when the process may open fewer files and sockets than its
// parts use.
func (s service) warnOfDescriptors(log *zap.Logger) {
	if have := httpd.Descriptors(); have > 0 && have < neededDescriptors {
		log.Warn("low limit of open files and sockets: raise it (ulimit -n, LimitNOFILE)",
			zap.Uint64("limit", have), zap.Int("want", neededDescriptors))
	}
}

// eventHooks returns the events to which a webhook may subscribe, and their groups.
func eventHooks(catalog *catalog.Catalog) (hooks []api.Hook) {
	formats := map[string]string{}
	for _, h := range catalog.Hooks() {
		formats[h.Name] = h.Format
	}
	for _, d := range catalog.Derivations() {
		formats[d.Hook] = d.Format
	}
	for _, name := range catalog.HookNames() {
		if name != admin.HookRecords && name != admin.HookAll {
			hooks = append(hooks, api.Hook{Name: name, Format: formats[name]})
		}
	}
	return hooks
}
