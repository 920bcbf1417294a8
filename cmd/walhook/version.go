package main

import (
	"cmp"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// The linker sets version and commit for a release: -ldflags "-X main.version=1.2.3 -X
// main.commit=…". Otherwise they come from the Go tool's build information.
var version, commit string

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and Go version",
		Long: `Prints the version of this binary, the commit that it was built from and the
Go version that built it. The version is also in the User-Agent header of each
delivery, as walhook/<version>.`,
		Example: "  walhook version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), readBuild())
			return err
		},
	}
}

// build is the binary's build information.
type build struct {
	version   string // "dev" when unknown
	commit    string // "" when unknown
	modified  bool   // the source differed from the commit
	goVersion string
}

func readBuild() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return build{version: cmp.Or(version, "dev"), commit: commit, goVersion: "unknown"}
	}
	b := build{version: version, commit: commit, goVersion: info.GoVersion}
	if b.version == "" && info.Main.Version != "(devel)" {
		b.version = strings.TrimPrefix(info.Main.Version, "v")
	}
	b.version = cmp.Or(b.version, "dev")
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.commit = cmp.Or(commit, s.Value)
		case "vcs.modified":
			b.modified = s.Value == "true"
		}
	}
	return b
}

func (b build) String() string {
	source := cmp.Or(b.commit, "unknown")
	if b.modified {
		source += ", modified"
	}
	return fmt.Sprintf("walhook %s (commit %s) %s", b.version, source, b.goVersion)
}
