package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newManCommand returns the command that writes manual pages for packages; .ci/release
// runs it.
func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIRECTORY",
		Short: "Write a manual page for each command",
		Long: `Writes a manual page for each command into a directory, which must exist. With
SOURCE_DATE_EPOCH in the environment the pages have that date. The packages hold
them; 'man walhook' shows the first one.`,
		Example: "  walhook man man1",
		Args:    cobra.ExactArgs(1),
		Hidden:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true // it has the date of today
			header := &doc.GenManHeader{Source: "walhook " + readBuild().version, Manual: "walhook"}
			// The same commit makes the same pages (reproducible-builds.org, SOURCE_DATE_EPOCH).
			if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
				seconds, err := strconv.ParseInt(epoch, 10, 64)
				if err != nil {
					return usage(fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970", epoch))
				}
				header.Date = new(time.Unix(seconds, 0).UTC())
			}
			return doc.GenManTree(root, header, args[0])
		},
	}
}
