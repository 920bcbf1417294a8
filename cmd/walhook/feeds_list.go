package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"walhook/outbox/admin"
)

func writeFeeds(out io.Writer, feeds []admin.OperatorFeed) error {
	if len(feeds) == 0 {
		_, err := fmt.Fprintln(out, "no feeds: 'walhook feeds add' adds one")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tENDPOINT\tURL\tEVENTS\tSTATE\tDETAIL")
	now := time.Now()
	for i := range feeds {
		f := &feeds[i]
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\n", cell(f.Name), f.Info.ID, cell(f.Info.URL), cell(feedEvents(f)), f.Info.State, printable(endpointDetail(&f.Info, now)))
	}
	return table.Flush()
}

// feedEvents says which events a feed gets.
func feedEvents(f *admin.OperatorFeed) string {
	text := f.Hook
	if len(f.Schemas) > 0 {
		text += ", of " + strings.Join(f.Schemas, ",")
	}
	if len(f.Types) > 0 {
		text += ", " + strings.Join(f.Types, ",")
	}
	return text
}

func writeFeed(out io.Writer, f *admin.OperatorFeed) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"name", f.Name}, {"endpoint", fmt.Sprint(f.Info.ID)}, {"URL", f.Info.URL}, {"prefix", f.SubjectPrefix},
		{"events", f.Hook}, {"schemas", cmp.Or(strings.Join(f.Schemas, ","), "all")}, {"types", cmp.Or(strings.Join(f.Types, ","), "all")},
		{"state", string(f.Info.State)}, {"lane", string(f.Info.LaneStatus(time.Now()))}, {"detail", endpointDetail(&f.Info, time.Now())},
		{"added", f.CreatedAt.UTC().Format(time.RFC3339)}, {"changed", f.ChangedAt.UTC().Format(time.RFC3339)},
	} {
		if line[1] != "" {
			fmt.Fprintf(table, "%s\t%s\n", line[0], printable(line[1]))
		}
	}
	return table.Flush()
}

// feedJSON is one line of feeds --json.
type feedJSON struct {
	Name    string   `json:"name"`
	Prefix  string   `json:"prefix,omitempty"` // of the subjects, over NATS
	Hook    string   `json:"hook"`
	Schemas []string `json:"schemas"` // empty is all
	Types   []string `json:"types"`   // empty is all
	endpointJSON
}

func feedLine(f *admin.OperatorFeed) feedJSON {
	return feedJSON{Name: f.Name, Prefix: f.SubjectPrefix, Hook: f.Hook, Schemas: f.Schemas, Types: f.Types, endpointJSON: endpointLine(&f.Info, time.Now())}
}

func writeFeedsJSON(out io.Writer, feeds []admin.OperatorFeed) error {
	lines := make([]feedJSON, len(feeds))
	for i := range feeds {
		lines[i] = feedLine(&feeds[i])
	}
	return writeJSON(out, lines)
}
