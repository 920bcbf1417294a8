package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

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
control and compare.

With --update it brings a catalog file up to date with the database. What people
changed in FILE stays: names, order, comments, hooks, rules, and the fields and
tables that they left out. New tables and columns are added below a comment; what
the database has no more becomes a comment, with the reason. The last comment of a
draft lists the tables and columns that it has read: by it walhook tells what is
new from what was left out. In a file without it, walhook proposes in comments
only. The result goes to standard output, or with --write into FILE, whole or not
at all.`

func newCatalogDraftCommand() *cobra.Command {
	var account, output, file string
	var write bool
	cmd := &cobra.Command{
		Use:   "draft",
		Short: "Write a catalog file for an existing database, or bring one up to date",
		Long:  catalogDraftLong,
		Example: `  walhook catalog draft --source postgres://walhook@db/carrier
  walhook catalog draft --source postgres://walhook@db/carrier --account voip.customer --output catalog.yaml
  walhook catalog draft --source postgres://walhook@db/carrier --update catalog.yaml | diff catalog.yaml -
  walhook catalog draft --source postgres://walhook@db/carrier --update catalog.yaml --write`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case write && file == "":
				return usage(errors.New("--write is for --update FILE: name the file, or use --output for a new one"))
			case write && output != "":
				return usage(errors.New("--write and --output are two places for one file: use one of them"))
			case account != "" && file != "":
				return usage(errors.New("--account is for a new draft: --update takes the account table that the file names"))
			}
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
			var before []byte
			if file != "" {
				if before, err = readCatalog(file); err != nil {
					return usage(fmt.Errorf("--update: %w", err))
				}
			}
			tables, err := source.Inventory(cmd.Context(), s.cdcConfig())
			if err != nil {
				return err
			}
			var text []byte
			if file == "" {
				text, err = catalog.Draft(tables, name)
			} else {
				text, err = updatedCatalog(cmd.ErrOrStderr(), file, before, tables)
			}
			switch {
			case err != nil:
				return err
			case write:
				return replaceFile(file, before, text)
			case output != "":
				return writeNew(output, text)
			}
			return writeCatalog(cmd.OutOrStdout(), text)
		},
	}
	addSettings(cmd, "source")
	cmd.Flags().StringVar(&account, "account", "", "the `table` of accounts, such as voip.customer (default the best guess)")
	cmd.Flags().StringVar(&output, "output", "", "`file` to write, which must not exist (default standard output)")
	cmd.Flags().StringVar(&file, "update", "", "catalog `file` to bring up to date")
	cmd.Flags().BoolVar(&write, "write", false, "with --update: replace that file, if anything changed")
	return cmd
}

// updatedCatalog brings a file up to date and says what that means.
func updatedCatalog(log io.Writer, name string, before []byte, tables []*catalog.Table) ([]byte, error) {
	updated, err := catalog.Update(before, tables)
	if faults, ok := errors.AsType[catalog.Faults](err); ok {
		return nil, usage(fmt.Errorf("%s has errors, correct them first: %w", name, faults))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for _, note := range updated.Notes {
		if _, err := fmt.Fprintf(log, "%s\n", printable(name+": "+note)); err != nil {
			return nil, err
		}
	}
	if bytes.Equal(before, updated.Text) {
		if _, err := fmt.Fprintf(log, "%s is up to date\n", printable(name)); err != nil {
			return nil, err
		}
	}
	return updated.Text, nil
}

// writeCatalog prints a catalog file: on a terminal escaped, and as it is where it goes
// into a file or another program. A person's file may hold any character.
func writeCatalog(w io.Writer, text []byte) error {
	if file := fileOf(w); file != nil && !term.IsTerminal(int(file.Fd())) {
		w = file
	}
	_, err := w.Write(text)
	return err
}

// replaceFile writes a file anew, whole or not at all, with its mode and owner. It
// refuses a file that somebody else changed meanwhile.
func replaceFile(path string, before, text []byte) (err error) {
	if bytes.Equal(before, text) {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("--write: %w; the file is as it was", err)
		}
	}()
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", path)
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Chmod(info.Mode().Perm()), sameOwner(file, info), file.Sync(), file.Close()); err == nil {
		var now []byte
		if now, err = os.ReadFile(path); err == nil && !bytes.Equal(now, before) {
			err = fmt.Errorf("%s changed meanwhile: run the command again", path)
		}
		if err == nil {
			err = os.Rename(file.Name(), path)
		}
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
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
