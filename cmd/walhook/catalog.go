package main

import (
	"github.com/spf13/cobra"
)

const catalogLong = `The catalog file says which tables walhook publishes, as which schemas, with
which fields, and which account owns their rows (docs/CATALOG.md).

  draft  writes a catalog file for an existing database
  check  says all that is wrong with a catalog file
  diff   says what a changed catalog file means, before setup puts it in force

They only read.`

func newCatalogCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "catalog",
		Short: "Draft a catalog file for a database, check one, and compare one with the catalog in force",
		Long:  catalogLong,
		Example: `  walhook catalog draft --source postgres://walhook@db/carrier --output catalog.yaml
  walhook catalog check catalog.yaml
  walhook catalog check catalog.yaml --source postgres://walhook@db/carrier
  walhook catalog diff catalog.yaml --source postgres://walhook@db/carrier`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCatalogDraftCommand(), newCatalogCheckCommand(), newCatalogDiffCommand())
	return cmd
}
