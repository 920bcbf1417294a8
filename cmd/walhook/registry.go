package main

import (
	"cmp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// newRegistry returns a registry with the metrics of every process: Go's runtime, the
// process, and the build.
func newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	b := readBuild()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "walhook_build_info",
		Help: "1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{
			"version": b.version, "commit": cmp.Or(b.commit, "unknown"), "goversion": b.goVersion,
		},
	})
	info.Set(1)
	registry.MustRegister(info, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}
