package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"walhook/cdc/source"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

const catalogDraftLong = `Writes a catalog file for an existing database: the table of accounts, and a schema
for each table whose rows lead to an account, by foreign keys or, where there are
none, by the names of columns. Read the file and correct it: what is a guess says
so in a comment, and so does what was left out (tables without a way to an account
or without a key, columns whose names look secret).

It only reads, the system catalog alone, in one read-only transaction of at most a
minute. The same tables give the same file, so you can keep it under version
control and compare.`

func newCatalogDraftCommand() *cobra.Command {
	var account, output string
	cmd := &cobra.Command{
		Use:   "draft",
		Short: "Write a catalog file for an existing database",
		Long:  catalogDraftLong,
		Example: `  walhook catalog draft --source postgres://walhook@db/carrier
  walhook catalog draft --source postgres://walhook@db/carrier --account voip.customer --output catalog.yaml
  walhook catalog check catalog.yaml --source postgres://walhook@db/carrier`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			if s.Source == "" {
				return usage(errors.New("source is missing: set --source or WALHOOK_SOURCE to the carrier database's URL, such as postgres://user@host:5432/database"))
			}
			var name schemas.TableName
			if account != "" {
				if name, err = catalog.ParseTable(account); err != nil {
					return usage(fmt.Errorf("--account: %w", err))
				}
			}
			tables, err := source.Inventory(cmd.Context(), s.cdcConfig())
			if err != nil {
				return err
			}
			text, err := catalog.Draft(tables, name)
			if err != nil {
				return err
			}
			if output != "" {
				return writeNew(output, text)
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	addSettings(cmd, "source")
	cmd.Flags().StringVar(&account, "account", "", "the `table` of accounts, such as voip.customer (default the best guess)")
	cmd.Flags().StringVar(&output, "output", "", "`file` to write, which must not exist (default standard output)")
	return cmd
}

// writeNew writes a file that must not exist: nothing that a person wrote is lost.
func writeNew(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return usage(fmt.Errorf("--output: %s exists, and a draft replaces no file: name another one", path))
	}
	if err != nil {
		return usage(fmt.Errorf("--output: %w", err))
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Close())
}
