package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"walhook/cdc/source"
	"walhook/doctor"
	"walhook/schemas/catalog"
)

const catalogCheckLong = `Says all that is wrong with a catalog file, at once: where (line, column and the
path of keys), what, and what to write instead. FILE is a path or a built-in
catalog (carrier, platform); without it the check is of what --catalog names.

With --source it compares the file with that database too: tables, columns, keys,
the account table and the columns of rules. It only reads, the system catalog
alone, in one read-only transaction of at most a minute.

Errors are what walhook refuses, or what the file names and the database does not
have. Warnings are what walhook works with, but somebody should know.

The exit status is 0 without errors, 1 with errors, 2 for wrong usage or a file
that cannot be read.`

func newCatalogCheckCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say all that is wrong with a catalog file, with --source also against the database",
		Long:  catalogCheckLong,
		Example: `  walhook catalog check catalog.yaml
  walhook catalog check catalog.yaml --source postgres://walhook@db/carrier
  walhook catalog check catalog.yaml --json | jq -r '.errors[] | "\(.line): \(.path)"'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, text, err := catalogToCheck(cmd, args)
			if err != nil {
				return usage(err)
			}
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			file := catalog.Read(text)
			if s.Source != "" {
				tables, err := source.Inventory(cmd.Context(), s.cdcConfig())
				if err != nil {
					return err
				}
				file.Compare(tables)
			}
			return printCatalogCheck(cmd.OutOrStdout(), name, file, asJSON)
		},
	}
	addSettings(cmd, "source", "catalog")
	optional(cmd, "source")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

// catalogToCheck reads the file to check. It sets the setting to a built-in catalog,
// because the settings refuse a file with errors.
func catalogToCheck(cmd *cobra.Command, args []string) (name string, text []byte, err error) {
	if len(args) > 0 {
		name = args[0]
	} else if name, err = settingOf(cmd, "catalog"); err != nil {
		return "", nil, err
	}
	name = cmp.Or(name, "carrier")
	if err := cmd.Flags().Set("catalog", "carrier"); err != nil {
		return "", nil, err
	}
	text, err = catalogText(name)
	return name, text, err
}

// catalogText reads a file, or a built-in catalog by its name.
func catalogText(name string) ([]byte, error) {
	if builtIn := catalog.BuiltIn(name); builtIn != nil {
		return builtIn.YAML(), nil
	}
	return readCatalog(name)
}

// catalogVerdict is what --json prints.
type catalogVerdict struct {
	File     string         `json:"file"`
	OK       bool           `json:"ok"`
	Faults   catalog.Faults `json:"errors"`
	Warnings catalog.Faults `json:"warnings"`
}

func printCatalogCheck(out io.Writer, name string, file *catalog.File, asJSON bool) error {
	v := catalogVerdict{File: name, Faults: file.Faults(), Warnings: file.Warnings()}
	v.OK = len(v.Faults) == 0
	wrong := error(nil)
	if !v.OK {
		wrong = fmt.Errorf("%s: %s", name, doctor.Count(len(v.Faults), "error"))
	}
	if asJSON {
		v.Faults, v.Warnings = append(catalog.Faults{}, v.Faults...), append(catalog.Faults{}, v.Warnings...)
		return cmp.Or(writeJSON(out, v), wrong)
	}
	var faults []error
	tell := func(format string, args ...any) {
		_, err := fmt.Fprintf(out, format, args...)
		faults = append(faults, err)
	}
	for _, f := range v.Faults {
		tell("%s\n", printable(name+":"+f.String()))
	}
	for _, w := range v.Warnings {
		tell("%s\n", printable(fmt.Sprintf("%s:%d:%d: warning: %s", name, w.Line, w.Column, w.Text())))
	}
	if v.OK {
		warned := ""
		if n := len(v.Warnings); n > 0 {
			warned = ", with " + doctor.Count(n, "warning")
		}
		tell("%s is valid: %s%s\n", printable(name), doctor.Count(file.Schemas(), "schema"), warned)
	}
	return cmp.Or(errors.Join(faults...), wrong)
}
