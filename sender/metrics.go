package sender

import (
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"walhook/outbox"
	"walhook/sender/deliver"
)

// metrics of the sender. No label holds an account, an endpoint or a URL.
type metrics struct {
	attempts         *prometheus.CounterVec
	attemptSeconds   prometheus.Histogram
	commitToDelivery prometheus.Histogram
	lanes            *prometheus.GaugeVec
	breaker          *prometheus.CounterVec
	disabled         *prometheus.CounterVec
	failing          *prometheus.GaugeVec
	held             *prometheus.GaugeVec
	batchEvents      prometheus.Histogram
}

// The reasons of walhook_endpoints_disabled_total.
const (
	disabledGone    = "gone"
	disabledFailing = "failing"
)

// The states of a breaker, as walhook_breaker_transitions_total calls them.
const (
	breakerOpen     = "open"
	breakerHalfOpen = "half_open"
	breakerClosed   = "closed"
)

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_attempts_total",
			Help: "Delivery attempts, by outcome and reason. held: a local error, which costs the endpoint nothing.",
		}, []string{"outcome", "reason"}),
		attemptSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "walhook_attempt_seconds",
			Help:    "Duration of an attempt.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}),
		commitToDelivery: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "walhook_commit_to_delivery_seconds",
			Help:    "Time from the source's commit to the receiver's 2xx.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 3600, 86400},
		}),
		lanes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "walhook_lanes",
			Help: "Lanes that this sender has in memory, by state: an endpoint of its shards that had something to do within minutes, or is in trouble. held: the endpoint is not active.",
		}, []string{"state"}),
		breaker: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_breaker_transitions_total",
			Help: "Changes of the breakers' states.",
		}, []string{"to"}),
		disabled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_endpoints_disabled_total",
			Help: "Endpoints disabled by walhook.",
		}, []string{"reason"}),
		failing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "walhook_endpoints_failing",
			Help: "Endpoints that only fail, by warning stage: 1, 2 and 3 after 1/5, 3/5 and 4/5 of the time after which walhook disables them.",
		}, []string{"stage"}),
	}
	m.held = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "walhook_lanes_held",
		Help: "Lanes of this sender to which nothing can be sent because of a local error, or because of what is stored of their endpoint, by reason.",
	}, []string{"reason"})
	m.batchEvents = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "walhook_batch_events",
		Help:    "Events of a request to a webhook with batches.",
		Buckets: []float64{1, 2, 5, 10, 20, 50, 100},
	})
	m.initLabels()
	for _, c := range []prometheus.Collector{
		m.attempts, m.attemptSeconds, m.commitToDelivery, m.lanes, m.breaker, m.disabled, m.failing, m.held, m.batchEvents,
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register the sender's metrics: %w", err)
		}
	}
	return m, nil
}

// initLabels exports every label value from the start, as zero.
func (m *metrics) initLabels() {
	for _, r := range deliver.Results() {
		m.attempts.WithLabelValues(string(r.Outcome), r.Reason)
		if r.Outcome == deliver.Retry || r.Outcome == deliver.Pause {
			m.attempts.WithLabelValues(string(deliver.Dead), r.Reason)
		}
	}
	for _, state := range outbox.LaneStatuses() {
		m.lanes.WithLabelValues(string(state))
	}
	for _, reason := range heldReasons() {
		m.held.WithLabelValues(reason)
	}
	for _, to := range []string{breakerOpen, breakerHalfOpen, breakerClosed} {
		m.breaker.WithLabelValues(to)
	}
	for stage := range warnAfter {
		m.failing.WithLabelValues(strconv.Itoa(stage + 1))
	}
	for _, reason := range []string{disabledGone, disabledFailing} {
		m.disabled.WithLabelValues(reason)
	}
}

// heldUnusable is the reason of walhook_lanes_held for an endpoint whose stored state
// cannot be used.
const heldUnusable = "unusable_endpoint"

// heldReasons are those of walhook_lanes_held.
func heldReasons() []string {
	reasons := []string{heldUnusable}
	for _, r := range deliver.Results() {
		if r.Lasting {
			reasons = append(reasons, r.Reason)
		}
	}
	return reasons
}
