package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"walhook/schemas/catalog"
)

func newSchemasCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "schemas [event]",
		Short: "Print the catalog for account users: events, fields and forms",
		Long: `Prints the present catalog, the built-in one or that of --catalog:

  markdown     a page for account users
  json-schema  a JSON Schema (2020-12) of each event's body under $defs, or of
               one event, if you name it
  yaml         the catalog file itself, hooks and rules included, as a start for
               your own`,
		Example: `  walhook schemas > WEBHOOKS.md
  walhook schemas --format json-schema channel_create
  walhook schemas --format yaml > catalog.yaml`,
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
			return printSchemas(cmd.OutOrStdout(), s.Catalog, format, event)
		},
	}
	addSettings(cmd, "catalog")
	cmd.Flags().StringVar(&format, "format", "markdown", "`form` to print: markdown, json-schema or yaml")
	return cmd
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
	case "json-schema":
		return printJSONSchema(out, catalog, event)
	}
	return usage(fmt.Errorf("--format %q: want markdown, json-schema or yaml", format))
}

func printJSONSchema(out io.Writer, catalog *catalog.Catalog, event string) error {
	all := jsonSchemas(catalog)
	if event == "" {
		return writeJSON(out, map[string]any{"$schema": jsonSchemaDialect, "title": "Events of walhook", "$defs": all})
	}
	one, known := all[event]
	if !known {
		names := make([]string, 0, len(all))
		for name := range all {
			names = append(names, name)
		}
		return usage(fmt.Errorf("no event %q in the catalog; its events are %s", event, strings.Join(sorted(names), ", ")))
	}
	one["$schema"] = jsonSchemaDialect
	return writeJSON(out, one)
}
