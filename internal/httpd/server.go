package httpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Config configures a server.
type Config struct {
	// Setting is the name of the flag that sets the address, for people.
	Setting string
	Address string // host:port
	Handler http.Handler
	Bounds  Bounds // zero: by the process's limit of descriptors
	// Trusted are proxies without a bound per address, since each stands for many
	// clients.
	Trusted []netip.Prefix
	// Certificate is nil for plain HTTP.
	Certificate *Certificate

	times times // zero: standardTimes
}

// Listeners makes the servers of one process, which share metrics.
type Listeners struct {
	log     *zap.Logger
	metrics connections
}

// NewListeners registers the metrics of listeners; registry may be nil.
func NewListeners(log *zap.Logger, registry prometheus.Registerer) *Listeners {
	return &Listeners{log: log, metrics: newConnections(registry)}
}

// Server is a server that listens already. Serve closes it.
type Server struct {
	cfg      Config
	listener net.Listener
	http     *http.Server
	log      *zap.Logger
}

// Listen begins to listen.
func (l *Listeners) Listen(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Bounds == (Bounds{}) {
		cfg.Bounds = BoundsFor(Descriptors())
	}
	if cfg.times == (times{}) {
		cfg.times = standardTimes()
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another address with --%s", cfg.Address, err, cfg.Setting)
	}
	for _, reason := range []string{refusedTotal, refusedAddress} {
		l.metrics.refused.WithLabelValues(cfg.Setting, reason)
	}
	s := &Server{cfg: cfg, log: l.log, listener: &limited{
		Listener: listener, bounds: cfg.Bounds, trusted: cfg.Trusted, plain: cfg.Certificate == nil, log: l.log.With(zap.String("setting", cfg.Setting)),
		open:    l.metrics.open.WithLabelValues(cfg.Setting),
		refused: func(reason string) prometheus.Counter { return l.metrics.refused.WithLabelValues(cfg.Setting, reason) },
		by:      map[netip.Addr]int{},
	}}
	notes, err := zap.NewStdLogAt(l.log.Named("http"), zap.InfoLevel)
	if err != nil {
		return nil, fmt.Errorf("create a log for %s: %w", cfg.Address, err)
	}
	s.http = &http.Server{
		Handler:           bound(cfg.Handler, cfg.times),
		ReadHeaderTimeout: cfg.times.header,
		WriteTimeout:      cfg.times.write, // for net/http's own answers; bound renews it for handlers
		IdleTimeout:       cfg.times.idle,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          notes,
	}
	// HTTP/2 would need other bounds, and no client needs it.
	s.http.Protocols = new(http.Protocols)
	s.http.Protocols.SetHTTP1(true)
	if cfg.Certificate != nil {
		s.http.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cfg.Certificate.get, NextProtos: []string{"http/1.1"}}
	}
	return s, nil
}

// Addr is the address that it listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers until ctx ends. Running requests then have the time stop to finish; Serve
// returns an error if they do not.
func (s *Server) Serve(ctx context.Context, stop time.Duration) error {
	stopped := make(chan error, 1)
	ignore := context.AfterFunc(ctx, func() {
		last, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), stop, errors.New("stop listening"))
		defer cancel()
		stopped <- s.http.Shutdown(last)
	})
	var err error
	if c := s.cfg.Certificate; c != nil {
		watching, end := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.watch(watching)
		}()
		defer func() {
			end()
			<-done
		}()
		err = s.http.ServeTLS(s.listener, "", "")
	} else {
		err = s.http.Serve(s.listener)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		ignore()
		return fmt.Errorf("serve on %s: %w", s.cfg.Address, err)
	}
	if err := <-stopped; err != nil {
		_ = s.http.Close() // a client is still sending
		return err
	}
	return nil
}
