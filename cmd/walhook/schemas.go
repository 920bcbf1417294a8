package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"walhook/outbox"
	"walhook/schemas/catalog"
)

func newSchemasCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "schemas [event]",
		Short: "Print the catalog for account users: events, fields and forms",
		Long: `Prints the catalog in force, which the outbox holds. Without --source and --outbox,
before the first setup, or with --catalog on the command line, it prints that
file or the built-in catalog. A line on standard error says which one it is.

  markdown     a page for account users
  json-schema  a JSON Schema (2020-12) of each event's body under $defs, or of
               one event, if you name it
  asyncapi     an AsyncAPI 3.0 document with a message for each event in each format
  yaml         the catalog file itself, hooks and rules included, as a start for
               your own`,
		Example: `  walhook schemas > WEBHOOKS.md
  walhook schemas --format json-schema channel_create
  walhook schemas --format yaml --catalog carrier > catalog.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			event := ""
			if len(args) > 0 {
				event = args[0]
			}
			printed, origin, err := catalogToPrint(cmd, s)
			if err != nil {
				return err
			}
			if err := printSchemas(cmd.OutOrStdout(), printed, format, event); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.ErrOrStderr(), "# "+origin)
			return err
		},
	}
	addSettings(cmd, "source", "outbox", "catalog")
	optional(cmd, "source")
	optional(cmd, "outbox")
	cmd.Flags().StringVar(&format, "format", "markdown", "`form` to print: markdown, json-schema, asyncapi or yaml")
	return cmd
}

// catalogToPrint returns the catalog in force, or the file where none is known or that is
// asked for, and which one it is.
func catalogToPrint(cmd *cobra.Command, s settings) (printed *catalog.Catalog, origin string, err error) {
	name, err := settingOf(cmd, "catalog")
	if err != nil {
		return nil, "", usage(err)
	}
	file := "the catalog of " + name
	if name == "" {
		file = "the built-in catalog"
	}
	switch {
	case cmd.Flags().Changed("catalog"):
		return s.Catalog, file + ", as --catalog asks; without it the one in force is printed", nil
	case s.Outbox == "":
		return s.Catalog, file + "; with --outbox the one in force is printed", nil
	}
	store, err := outbox.Open(cmd.Context(), s.outboxConfig(), zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		return nil, "", usage(err)
	}
	defer store.Close()
	inForce, err := store.CatalogInForce(cmd.Context())
	if err != nil {
		return nil, "", outboxFault(err)
	}
	if inForce == nil {
		return s.Catalog, file + "; the outbox holds none: 'walhook setup' has not run yet", nil
	}
	origin = "the catalog in force, from the outbox"
	if !inForce.Same(s.Catalog) && name != "" {
		origin += "; " + name + " is another one: 'walhook catalog diff' compares them"
	}
	return inForce, origin, nil
}

func printSchemas(out io.Writer, catalog *catalog.Catalog, format, event string) error {
	if event != "" && format != "json-schema" {
		return usage(errors.New("a single event needs --format json-schema"))
	}
	switch format {
	case "markdown":
		_, err := io.WriteString(out, schemasMarkdown(catalog))
		return err
	case "yaml":
		_, err := out.Write(catalog.YAML())
		return err
	case "asyncapi":
		return writeJSON(out, catalog.AsyncAPI(readBuild().version))
	case "json-schema":
		return printJSONSchema(out, catalog, event)
	}
	return usage(fmt.Errorf("--format %q: want markdown, json-schema, asyncapi or yaml", format))
}

func printJSONSchema(out io.Writer, printed *catalog.Catalog, event string) error {
	all := printed.JSONSchemas()
	if event == "" {
		return writeJSON(out, map[string]any{"$schema": catalog.JSONSchemaDialect, "title": "Events of walhook", "$defs": all})
	}
	one, known := all[event]
	if !known {
		return usage(fmt.Errorf("no event %q in the catalog; its events are %s", event, strings.Join(slices.Sorted(maps.Keys(all)), ", ")))
	}
	one["$schema"] = catalog.JSONSchemaDialect
	return writeJSON(out, one)
}
