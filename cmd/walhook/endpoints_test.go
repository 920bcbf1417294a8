package main

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"walhook/internal/carrier"
	"walhook/internal/pgtest"
)

// walhook runs a command and returns what it printed.
func walhook(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestEndpoints_AreListedAndOperated(t *testing.T) {
	w := newWorld(t, pgtest.Database(t), func(i int) string {
		return []string{"https://u:hunter2@example.com/hook?token=hunter2", "ftp://example.com/", ""}[i%3]
	})
	account, unusable := idText(carrier.AccountID(0)), idText(carrier.AccountID(1))
	run := func(want string, args ...string) string {
		t.Helper()
		out, err := walhook(t, append(args, "--outbox", w.db.URL)...)
		if err != nil || !strings.Contains(out, want) || strings.Contains(out, "hunter2") {
			t.Errorf("walhook %s: %v, printed\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	run("https://…@example.com/hook?…  active", "endpoints")
	run("ftp://example.com/            unusable  the URL's scheme is neither http nor https", "endpoints")
	run("account "+account+" is disabled: its events are held (asked for)", "endpoints", "disable", account, "--reason", "asked for")
	run("disabled  asked for, by operator", "endpoints")
	run("account "+account+" is active: its events go to https://…@example.com/hook?…", "endpoints", "enable", account)
	if secret := run("whsec_", "endpoints", "secret", account); strings.Count(secret, "\n") != 1 {
		t.Errorf("secret: %q", secret)
	}

	var lines []map[string]any
	if err := json.Unmarshal([]byte(run(`"state": "active"`, "endpoints", "--json")), &lines); err != nil || len(lines) != 8 {
		t.Errorf("%d lines, %v", len(lines), err)
	}
	refuse := func(want string, status int, args ...string) {
		t.Helper()
		_, err := walhook(t, append(args, "--outbox", w.db.URL)...)
		if err == nil || !strings.Contains(err.Error(), want) || exitStatus(t.Context(), err) != status {
			t.Errorf("walhook %s: %v", strings.Join(args, " "), err)
		}
	}
	refuse("no such endpoint; 'walhook endpoints' lists them", exitFault, "endpoints", "secret", "nobody")
	refuse("until the account sets a URL that can be used", exitFault, "endpoints", "enable", unusable)
	refuse("--reason is empty", exitUsage, "endpoints", "disable", account, "--reason", "")
	refuse("accepts 1 arg(s)", exitUsage, "endpoints", "enable")
}

func TestEndpoints_SayWhatIsMissing(t *testing.T) {
	db := pgtest.Database(t)
	_, err := walhook(t, "endpoints", "--source", db.URL)
	if err == nil || !strings.Contains(err.Error(), "walhook setup") {
		t.Errorf("no outbox: %v", err)
	}
	_, err = walhook(t, "endpoints", "--source", strings.Replace(db.URL, db.Name, db.Name+"_not_there", 1))
	if err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("no database: %v", err)
	}
	t.Setenv("WALHOOK_SOURCE", "")
	t.Setenv("WALHOOK_OUTBOX", "")
	_, err = walhook(t, "endpoints")
	if err == nil || exitStatus(t.Context(), err) != exitUsage {
		t.Errorf("no setting: %v", err)
	}
}

func idText(id int64) string { return strconv.FormatInt(id, 10) }
