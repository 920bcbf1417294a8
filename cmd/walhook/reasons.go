package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"

	"walhook/cdc/source"
	"walhook/outbox"
	"walhook/schemas"
	"walhook/sender/deliver"
)

const reasonsLong = `Explains the reasons that walhook gives, in logs, metrics, 'walhook status',
'walhook endpoints', 'walhook doctor' and the API: what happened, and what to do.
It prints all of them, or those that are named. It asks no database.`

func newReasonsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reasons [reason…]",
		Args:  cobra.ArbitraryArgs,
		Short: "Explain the reasons that walhook gives: what happened, what to do",
		Long:  reasonsLong,
		Example: `  walhook reasons blocked_address
  walhook reasons source.replica_identity owner_unknown`,
		RunE: func(cmd *cobra.Command, names []string) error {
			return writeReasons(cmd.OutOrStdout(), reasonGroups(), names)
		},
	}
}

// reasonGroup are reasons about one kind of thing.
type reasonGroup struct {
	title   string
	about   string
	reasons []schemas.Reason
}

// reasonGroups are all reasons, from the packages that give them.
func reasonGroups() []reasonGroup {
	stored := outbox.Explain()
	return []reasonGroup{
		{"Attempts", "Labels of `walhook_attempts_total`; also in log lines, `walhook endpoints`, `walhook status` and `walhook.attempt`. A dead letter has the reason of its last attempt. Accounts see fewer of them: [RECEIVERS.md](RECEIVERS.md#what-went-wrong).", deliver.Reasons()},
		{"Changes without an event", "Labels of `walhook_changes_skipped_total`, and reasons of `walhook.unrouted`.", stored.Skipped},
		{"Items set aside", "Labels of `walhook_items_set_aside_total`, and reasons of `walhook.set_aside` ([When one item is bad](OPERATIONS.md#when-one-item-is-bad)).", stored.Aside},
		{"Dead letters", "Reasons of `walhook.dead_letter` beside those of attempts.", stored.DeadLetters},
		{"States of endpoints", "As `walhook endpoints` and `walhook_endpoints` have them.", stored.States},
		{"Endpoints that get nothing", "Reasons in words, of `walhook endpoints`, `walhook status` and the API.", stored.Endpoints},
		{"Gaps", "Why changes may be missing: reasons of `walhook.gap`, `walhook status` and exit status 3 ([WalhookGap](OPERATIONS.md#walhookgap)).", source.GapReasons()},
		{"Checks of doctor", "When each is not ok. `walhook doctor` prints what it saw, and the statement or command that fixes it.", checkMeanings},
	}
}

// writeReasons prints the named reasons, or all.
func writeReasons(out io.Writer, groups []reasonGroup, names []string) error {
	var text strings.Builder
	var faults []error
	for _, name := range names {
		if !slices.ContainsFunc(groups, func(g reasonGroup) bool { return g.has(name) }) {
			advice := "'walhook reasons' lists them"
			if near := schemas.Nearest(name, reasonNames(groups)); near != "" {
				advice = "did you mean " + near + "?"
			}
			faults = append(faults, fmt.Errorf("no reason %q: %s", name, advice))
		}
	}
	if len(faults) > 0 {
		return usage(errors.Join(faults...))
	}
	for _, g := range groups {
		titled := false
		for _, r := range g.reasons {
			if len(names) > 0 && !slices.Contains(names, r.Name) {
				continue
			}
			if !titled {
				fmt.Fprintf(&text, "%s\n\n", strings.ToUpper(g.title))
				titled = true
			}
			fmt.Fprintf(&text, "  %s\n%s", r.Name, indented(r.Cause))
			if r.Fix != "" {
				text.WriteString(indented("To do: " + r.Fix))
			}
			text.WriteString("\n")
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}

func reasonNames(groups []reasonGroup) (names []string) {
	for _, g := range groups {
		for _, r := range g.reasons {
			names = append(names, r.Name)
		}
	}
	return names
}

func (g reasonGroup) has(name string) bool {
	return slices.ContainsFunc(g.reasons, func(r schemas.Reason) bool { return r.Name == name })
}

// indented wraps a text to the lines of a terminal, without the marks of Markdown.
func indented(text string) string {
	wrapped := ansi.Wordwrap(strings.ReplaceAll(text, "`", ""), 74, "")
	return "      " + strings.ReplaceAll(wrapped, "\n", "\n      ") + "\n"
}
