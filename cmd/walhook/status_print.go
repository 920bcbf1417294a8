package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"walhook/cdc/source"
	"walhook/outbox"
	"walhook/outbox/admin"
)

// write prints the status for people.
func (v *statusView) write(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	p := statusPrinter{table: table}
	if v.outbox == nil {
		p.row("outbox", "DOES NOT ANSWER: %v", v.outboxErr)
	} else {
		for _, g := range v.outbox.Gaps {
			p.row("GAP", "changes from %s to %s may be missing since %s: %s; then 'walhook setup --accept-gap'",
				g.From, orUnknown(g.To.String(), g.To == 0), clock(g.FoundAt), g.Reason)
		}
		if g := v.outbox.Reconciled; g != nil {
			state := "all appended"
			if g.Left {
				state = "NOT ALL APPENDED: the next publisher continues"
			}
			p.row("after a gap", "gap %d, accepted %s: %d inserts, %d updates, %d deletes, %d results, %d emitted events of %d sent, %s; %s",
				g.ID, clock(g.AcceptedAt), g.Inserts, g.Updates, g.Deletes, g.Results, g.Events, g.Missed, state, g.Note)
		}
		if c := &v.outbox.Catalog; !c.Pending.IsZero() {
			p.row("catalog", "A CHANGED ONE WAITS since %s: not in force, because %s; 'walhook catalog diff' says what changes",
				clock(c.Pending), cmp.Or(c.Why, v.whyPending()))
		}
		if at := v.outbox.Failover; !at.IsZero() {
			p.row("failover", "the outbox failed over, or was restored, before %s: changes of webhooks, endpoints and replays made in the seconds before may be lost", clock(at))
		}
	}
	v.writeSource(&p)
	if v.outbox != nil {
		p.writeOutbox(v.outbox, v.source)
	}
	if v.outbox != nil {
		p.writeResyncs(v.outbox.Resyncs)
	}
	if err := table.Flush(); err != nil || v.outbox == nil {
		return err
	}
	return writeEndpointTables(out, v.outbox)
}

// statusPrinter prints lines of a name and a text.
type statusPrinter struct{ table io.Writer }

func (p *statusPrinter) row(name, format string, args ...any) {
	fmt.Fprintf(p.table, "%s\t%s\n", name, printable(fmt.Sprintf(format, args...)))
}

func (v *statusView) writeSource(p *statusPrinter) {
	switch {
	case !v.asked:
		p.row("source", "not queried: no --source")
		return
	case v.source == nil:
		p.row("source", "DOES NOT ANSWER: %v", v.sourceErr)
		return
	}
	s := v.source
	switch {
	case s.WALStatus == "missing":
		p.row("slot", "%s DOES NOT EXIST", v.slot)
		return
	case s.Active:
		by := "read by " + s.Reader.String()
		if s.Reader.Foreign() {
			by = "READ BY ANOTHER PROGRAM: " + s.Reader.String()
		}
		p.row("slot", "%s, %s, wal_status %s", v.slot, by, s.WALStatus)
	default:
		p.row("slot", "%s, NOT READ BY ANY PROCESS, wal_status %s", v.slot, s.WALStatus)
	}
	if why := s.Held(); why != "" {
		p.row("HELD BACK", "the source sends nothing: %s", why)
	}
	if bytes, seconds, known := v.lag(); known {
		p.row("lag", "%s, %s", byteText(float64(bytes)), secondsText(seconds))
	}
	if math.IsInf(s.Limit, 1) {
		p.row("WAL retained", "%s on the source's disk, with no limit (max_slot_wal_keep_size)", byteText(s.Retained))
	} else {
		p.row("WAL retained", "%s on the source's disk, %.0f%% of %s (max_slot_wal_keep_size)", byteText(s.Retained), 100*s.Retained/s.Limit, byteText(s.Limit))
	}
}

// whyPending says why a catalog is pending that no publisher has tried to adopt.
func (v *statusView) whyPending() string {
	switch {
	case v.source == nil:
		return "no publisher has tried yet"
	case !v.source.Active || v.source.Reader.Foreign():
		return "no publisher runs"
	}
	return "the publisher has not tried yet, it looks every second"
}

// writeResyncs names the resyncs in progress, the oldest first.
func (p *statusPrinter) writeResyncs(list []admin.Resync) {
	const most = 5
	for i, r := range list {
		if i == most {
			p.row("", "and %d more", len(list)-most)
			break
		}
		state := "waits for the publisher since " + clock(r.AskedAt)
		if !r.StartedAt.IsZero() {
			state = progressCount(r.Sent, r.Total) + " records since " + clock(r.StartedAt)
		}
		p.row("resync", "%d of account %s, webhook %s: %s", r.ID, printable(r.Account), r.Webhook, state)
	}
}

func (p *statusPrinter) writeOutbox(st *admin.Status, source *source.SlotReport) {
	pub := &st.Publisher
	switch {
	case pub.StoredAt.IsZero():
		p.row("position", "none: 'walhook setup' has not finished")
	default:
		p.row("position", "%s, stored %s ago", pub.Position, secondsText(st.At.Sub(pub.StoredAt).Seconds()))
	}
	switch {
	case pub.Name == "":
	case source != nil && (!source.Active || source.Reader.Foreign()):
		p.row("publisher", "NONE; the last was %s, epoch %d, since %s", pub.Name, pub.Epoch, clock(pub.TakenAt))
	default:
		p.row("publisher", "%s, epoch %d, since %s", pub.Name, pub.Epoch, clock(pub.TakenAt))
	}
	p.row("throughput", "%s events/s appended, %s delivered, %s attempts/s failed (last %s)",
		rateText(st.Appended), rateText(st.Delivered), rateText(st.Failed), admin.ThroughputWindow)
	if st.Backlog == 0 {
		p.row("backlog", "nothing waits")
	} else {
		events := "events"
		if st.Backlog == 1 {
			events = "event"
		}
		p.row("backlog", "about %d %s, the oldest has waited for %s", st.Backlog, events, secondsText(st.Oldest.Seconds()))
	}
	p.row("lanes", "%s", countsText(st.Lanes))
	states := map[string]int{}
	for state, n := range st.Endpoints {
		states[string(state)] = n
	}
	p.row("endpoints", "%s", countsText(states))
	p.row("dead letters", "%s", deadText(st.DeadLetters))
	for _, s := range st.Senders {
		lease := fmt.Sprintf("lease valid for %s", secondsText(s.Lease.Seconds()))
		if s.Lease <= 0 {
			lease = "LEASE EXPIRED"
		}
		p.row("sender", "%s, %s, shards %s", s.Name, lease, shardText(s.Shards))
	}
	if len(st.Unowned) > 0 {
		p.row("NO SENDER", "for shards %s: their endpoints get nothing", shardText(st.Unowned))
	}
}

func writeEndpointTables(out io.Writer, st *admin.Status) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(st.Worst) > 0 {
		fmt.Fprintln(table, "\nWORST ENDPOINTS\nACCOUNT\tENDPOINT\tLANE\tREASON\tFAILING SINCE\tOLDEST WAITS\tIN RETRY\tDEAD\tURL")
		for i := range st.Worst {
			w := &st.Worst[i]
			since, oldest := "", ""
			if !w.Lane.FailingSince.IsZero() {
				since = clock(w.Lane.FailingSince)
			}
			if w.Oldest > 0 {
				oldest = secondsText(w.Oldest.Seconds())
			}
			fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", accountCell(w.Account), w.ID, w.Status, cell(w.Why),
				since, oldest, countText(w.Retries), countText(w.Dead), printable(w.URL))
		}
	}
	if len(st.Held) > 0 {
		fmt.Fprintln(table, "\nHELD ENDPOINTS\nACCOUNT\tENDPOINT\tSINCE\tREASON\tURL")
		for i := range st.Held {
			h := &st.Held[i]
			fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\n", accountCell(h.Account), h.ID, clock(h.Since), cell(h.Why), printable(h.URL))
		}
	}
	if n := len(st.Disabled); n > 0 {
		fmt.Fprintln(table, "\nDISABLED ENDPOINTS\nACCOUNT\tENDPOINT\tBY\tSINCE\tREASON\tURL")
		for i := range st.Disabled {
			e := &st.Disabled[i]
			fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\n", accountCell(e.Account), e.ID, e.DisabledBy, clock(e.ChangedAt), cell(e.Reason), printable(e.URL))
		}
		if more := st.Endpoints[outbox.EndpointDisabled] - n; more > 0 {
			fmt.Fprintf(table, "… and %d more: 'walhook endpoints' lists them\n", more)
		}
	}
	if len(st.Worst)+len(st.Held)+len(st.Disabled) > 0 {
		fmt.Fprintln(table, "\n'walhook reasons REASON' explains a reason")
	}
	return table.Flush()
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func orUnknown(text string, unknown bool) string {
	if unknown {
		return "an unknown position"
	}
	return text
}

func byteText(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 1024 {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", n), ".0") + " " + unit
		}
		n /= 1024
	}
	return fmt.Sprintf("%.1f TiB", n)
}

// secondsText writes short times exactly and long ones rounded.
func secondsText(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func rateText(r float64) string {
	if r > 0 && r < 10 {
		return fmt.Sprintf("%.1f", r)
	}
	return fmt.Sprintf("%.0f", r)
}

// countsText lists the counts that are not zero, the highest first.
func countsText(counts map[string]int) string {
	var parts []string
	for _, name := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a, b)
	}) {
		if counts[name] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[name], name))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func deadText(byReason map[string]int) string {
	total := 0
	for _, n := range byReason {
		total += n
	}
	text := countsText(byReason)
	if total >= admin.CountLimit {
		return fmt.Sprintf("%d or more; of these: %s", admin.CountLimit, text)
	}
	return text
}

// shardText writes runs as from-to.
func shardText(shards []int) string {
	var parts []string
	for i := 0; i < len(shards); {
		j := i
		for j+1 < len(shards) && shards[j+1] == shards[j]+1 {
			j++
		}
		if i == j {
			parts = append(parts, fmt.Sprint(shards[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", shards[i], shards[j]))
		}
		i = j + 1
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, " ")
}
