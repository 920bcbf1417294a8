package main

import (
	"github.com/spf13/cobra"
)

const catalogLong = `The catalog file says which tables walhook publishes, as which schemas, with
which fields, and which account owns their rows (docs/CATALOG.md).

  check  says all that is wrong with a catalog file`

func newCatalogCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "catalog",
		Short: "Check a catalog file",
		Long:  catalogLong,
		Example: `  walhook catalog check catalog.yaml
  walhook catalog check catalog.yaml --source postgres://walhook@db/carrier`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCatalogCheckCommand())
	return cmd
}
