package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"walhook/doctor"
	"walhook/internal/pgtest"
)

// The commands of doctor work on the databases that doctor was given.
func TestDoctor_ItsCommandsHaveItsSettings(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, "CREATE TABLE customer (id int PRIMARY KEY, webhook_url text)")
	dir := t.TempDir()
	catalog, config := filepath.Join(dir, "my catalog.yaml"), filepath.Join(dir, "walhook.yaml")
	for path, text := range map[string]string{catalog: "account: {table: public.customer, id: id, url: webhook_url}\n", config: "source: " + db.URL + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := walhook(t, "doctor", "--config", config, "--catalog", catalog, "--slot", "other", "--allow-cidr", "10.0.0.0/8")
	if want := " walhook setup --catalog '" + catalog + "' --config " + config + " --slot other\n"; !strings.Contains(out, want) {
		t.Errorf("no%s in\n%s", want, out)
	}
	out, _ = walhook(t, "doctor", "--source", db.URL, "--catalog", catalog)
	if want := " --source URL\n"; !strings.Contains(out, want) || strings.Contains(out, "setup --source "+db.URL) {
		t.Errorf("no%s in\n%s", want, out)
	}
}

func TestWithSettings_NeverNamesASecret(t *testing.T) {
	t.Parallel()
	root := newRootCommand()
	cmd, _, err := root.Find([]string{"doctor"})
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"source": "postgres://u:hush@h/d", "outbox": "host=h password=hush", "secret-key": "hush", "source-file": "/run/url"} {
		if err := cmd.Flags().Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	before := []doctor.Finding{{Fix: []doctor.Step{{Kind: doctor.Command, Text: "walhook setup --accept-gap"}, {Kind: doctor.Shell, Text: "walhook setup"}}}}
	after := withSettings(cmd, before)
	want := "walhook setup --accept-gap --outbox URL --secret-key VALUE --source URL --source-file /run/url"
	if got := after[0].Fix; got[0].Text != want || got[1].Text != "walhook setup" || before[0].Fix[0].Text != "walhook setup --accept-gap" {
		t.Errorf("%v, want %s", got, want)
	}
}
