package bench

import (
	"context"
	"fmt"
)

// Cost is the cost of deliveries. A figure that the system does not provide is 0; only
// Linux provides the CPU time of other processes.
type Cost struct {
	WalhookCPU  float64 `json:"walhook_cpu_seconds_per_1000"`
	PostgresCPU float64 `json:"postgres_cpu_seconds_per_1000"`
	// WalsenderCPU is the part of PostgreSQL's CPU time that decodes the source's WAL.
	WalsenderCPU float64 `json:"walsender_cpu_seconds_per_1000"`
	// ReceiverCPU is that of the receivers, on the same machine.
	ReceiverCPU float64 `json:"receiver_cpu_seconds_per_1000"`
	PeakRSS     float64 `json:"walhook_peak_rss_mib"`
	WAL         float64 `json:"wal_bytes_per_delivery"`
}

// CostSpread is the cost over the repetitions.
type CostSpread struct {
	WalhookCPU   Spread `json:"walhook_cpu_seconds_per_1000"`
	PostgresCPU  Spread `json:"postgres_cpu_seconds_per_1000"`
	WalsenderCPU Spread `json:"walsender_cpu_seconds_per_1000"`
	ReceiverCPU  Spread `json:"receiver_cpu_seconds_per_1000"`
	PeakRSS      Spread `json:"walhook_peak_rss_mib"`
	WAL          Spread `json:"wal_bytes_per_delivery"`
}

func costSpread[R any](runs []R, cost func(R) Cost) CostSpread {
	return CostSpread{
		WalhookCPU:   spreadOf(runs, func(r R) float64 { return cost(r).WalhookCPU }),
		PostgresCPU:  spreadOf(runs, func(r R) float64 { return cost(r).PostgresCPU }),
		WalsenderCPU: spreadOf(runs, func(r R) float64 { return cost(r).WalsenderCPU }),
		ReceiverCPU:  spreadOf(runs, func(r R) float64 { return cost(r).ReceiverCPU }),
		PeakRSS:      spreadOf(runs, func(r R) float64 { return cost(r).PeakRSS }),
		WAL:          spreadOf(runs, func(r R) float64 { return cost(r).WAL }),
	}
}

// meter is what has been used up to a moment.
type meter struct {
	postgresCPU float64 // seconds, of all of the server's processes
	receiverCPU float64
	wal         int64 // bytes of WAL
}

func (b *bench) meter(ctx context.Context) (m meter, err error) {
	if err := b.admin.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn() - '0/0'`).Scan(&m.wal); err != nil {
		return m, fmt.Errorf("read the end of the WAL: %w", err)
	}
	m.postgresCPU, m.receiverCPU = treeCPU(b.cluster.PID()), treeCPU(b.receiver.pid())
	return m, nil
}

// life holds figures that can only be read of running processes.
type life struct {
	peakRSS   uint64
	walsender float64
}

// life reads the figures of walhook and of its WAL sender.
func (w *world) life(ctx context.Context) (l life, err error) {
	l.peakRSS = memoryOf(w.walhook.pid()).VmHWM
	var pid *int
	const walsender = `SELECT max(active_pid) FROM pg_replication_slots WHERE slot_name = $1`
	if err := w.b.admin.QueryRow(ctx, walsender, w.slot).Scan(&pid); err != nil {
		return l, fmt.Errorf("find the walsender: %w", err)
	}
	if pid != nil {
		l.walsender = treeCPU(*pid)
	}
	return l, nil
}

// cost returns the cost per delivery since a meter was read. walhook must have been
// stopped; its start and stop are included.
func (b *bench) cost(ctx context.Context, walhook *child, l life, since meter, deliveries int) (Cost, error) {
	now, err := b.meter(ctx)
	if err != nil {
		return Cost{}, err
	}
	thousands := float64(deliveries) / 1000
	return Cost{
		WalhookCPU:   walhook.cpu() / thousands,
		PostgresCPU:  (now.postgresCPU - since.postgresCPU) / thousands,
		WalsenderCPU: l.walsender / thousands,
		ReceiverCPU:  (now.receiverCPU - since.receiverCPU) / thousands,
		PeakRSS:      mebibytes(l.peakRSS),
		WAL:          float64(now.wal-since.wal) / float64(deliveries),
	}, nil
}
