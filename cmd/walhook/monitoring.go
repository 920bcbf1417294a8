package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"walhook/deploy"
)

func newMonitoringCommand() *cobra.Command {
	var m deploy.Monitoring
	var output string
	cmd := &cobra.Command{
		Use:   "monitoring",
		Short: "Write alerts for Prometheus and a dashboard for Grafana",
		Long: `Writes what shows an installation's state. It replaces no file.

  alerts.yml           rules for Prometheus
  prometheusrule.yaml  the same rules for the Prometheus operator
  walhook.json         a dashboard for Grafana

The page that --runbooks names is a copy of docs/OPERATIONS.md where people can
open it. Each alert leads to its own paragraph there.`,
		Example: `  walhook monitoring --runbooks https://wiki.example.com/walhook/OPERATIONS.md --output monitoring`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			files, err := m.Files()
			if err != nil {
				return usage(err)
			}
			if err := os.MkdirAll(output, 0o755); err != nil {
				return err
			}
			for _, file := range files {
				path := filepath.Join(output, file.Name)
				if err := createFile(path, file.Content); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&m.Runbooks, "runbooks", "", "`URL` of the page with the runbooks")
	cmd.Flags().StringVar(&m.Job, "job", "walhook", "`name` of the scrape job in Prometheus")
	cmd.Flags().StringVar(&output, "output", ".", "`directory` to write into, which is created")
	return cmd
}

// createFile writes a file that must not exist.
func createFile(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return usage(fmt.Errorf("%s exists, and monitoring replaces no file: name another directory", path))
	}
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Close())
}
