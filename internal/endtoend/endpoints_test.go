package endtoend

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"walhook/internal/carrier"
	"walhook/internal/pgtest"
)

func TestEndpoints_AreListedAndOperated(t *testing.T) {
	w := newWorld(t, pgtest.Database(t), func(i int) string {
		return []string{"https://u:hunter2@example.com/hook?token=hunter2", "ftp://example.com/", ""}[i%3]
	})
	account, unusable := idText(carrier.AccountID(0)), idText(carrier.AccountID(1))
	run := func(want string, args ...string) string {
		t.Helper()
		text, err := childCommand(t, append(args, "--outbox", w.db.URL)...).CombinedOutput()
		out := string(text)
		if err != nil || !strings.Contains(out, want) || strings.Contains(out, "hunter2") {
			t.Errorf("walhook %s: %v, printed\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	run("https://…@example.com/hook?…  active", "endpoints")
	run("ftp://example.com/            unusable  the URL's scheme is neither http nor https", "endpoints")
	run("account "+account+" is disabled: walhook holds its events (asked for)", "endpoints", "disable", account, "--reason", "asked for")
	run("disabled  asked for (disabled by operator)", "endpoints")
	run("account "+account+" is active: walhook sends its events to https://…@example.com/hook?…", "endpoints", "enable", account)
	secret := run("whsec_", "endpoints", "secret", account)
	if strings.Count(secret, "\n") != 1 {
		t.Errorf("secret: %q", secret)
	}
	rotated, note, _ := strings.Cut(run("the previous secret also signs until 2", "endpoints", "rotate", account), "\n")
	if both := run("whsec_", "endpoints", "secret", account); both != rotated+"\n"+secret || strings.Contains(note, "whsec_") {
		t.Errorf("after a rotation with an overlap: %q", both)
	}
	rotated, _, _ = strings.Cut(run("all earlier secrets have expired", "endpoints", "rotate", account, "--overlap", "0"), "\n")
	if alone := run("whsec_", "endpoints", "secret", account); alone != rotated+"\n" {
		t.Errorf("after a rotation without: %q", alone)
	}

	if out := run("record\n", "endpoints", "ordering", account); out != "record\n" {
		t.Errorf("the default ordering is %q", out)
	}
	run("account "+account+" has ordering strict", "endpoints", "ordering", account, "strict")
	run("strict\n", "endpoints", "ordering", account)
	run("active    ordering strict", "endpoints")
	run(`"ordering": "strict"`, "endpoints", "--json")
	run("account "+account+" has ordering none", "endpoints", "ordering", account, "none")

	run("no holds", "endpoints", "holds")
	run("walhook sends nothing to example.com (abuse); webhooks disabled: 1", "endpoints", "disable", account, "--host", "http://EXAMPLE.com.:8443/", "--reason", "abuse")
	run("disabled  abuse (disabled by operator)", "endpoints")
	run(account+"     example.com  2", "endpoints", "holds", account)
	run(`"host": "example.com"`, "endpoints", "holds", "--json")
	run("no holds", "endpoints", "holds", "nobody")
	run("example.com is no longer held; webhooks enabled: 1", "endpoints", "enable", account, "--host", "example.com")
	run("account "+account+" is held", "endpoints", "disable", account, "--all", "--reason", "unpaid")
	run("*     2", "endpoints", "holds")
	run("webhooks enabled: 1", "endpoints", "enable", account, "--all")

	var lines []map[string]any
	if err := json.Unmarshal([]byte(run(`"state": "active"`, "endpoints", "--json")), &lines); err != nil || len(lines) != 8 {
		t.Errorf("%d lines, %v", len(lines), err)
	}
	refuse := func(want string, status int, args ...string) {
		t.Helper()
		_, err := walhook(t, append(args, "--outbox", w.db.URL)...)
		if err == nil || !strings.Contains(err.Error(), want) || exitCodeOf(err) != status {
			t.Errorf("walhook %s: %v", strings.Join(args, " "), err)
		}
	}
	refuse("endpoint not found; 'walhook endpoints' lists them", exitFault, "endpoints", "secret", "nobody")
	refuse("the account's URL is unusable", exitFault, "endpoints", "enable", unusable)
	refuse("--reason is empty", exitUsage, "endpoints", "disable", account, "--reason", "")
	refuse("--host is empty", exitUsage, "endpoints", "disable", account, "--host", "")
	refuse("--host is empty", exitUsage, "endpoints", "enable", account, "--host", "")
	refuse("--webhook and --all exclude", exitUsage, "endpoints", "disable", account, "--webhook", "account", "--all")
	refuse(`no event has the webhook-id "nope"`, exitFault, "replay", "--id", "nope")
	refuse("--host \"//\"", exitUsage, "endpoints", "disable", account, "--host", "//")
	refuse("give one of them", exitUsage, "endpoints", "disable", account, "--host", "x", "--all")
	refuse("'walhook endpoints holds' lists them", exitFault, "endpoints", "enable", account, "--host", "other.example")
	refuse("accepts 1 arg(s)", exitUsage, "endpoints", "enable")
	refuse("want one of none, record, strict", exitUsage, "endpoints", "ordering", account, "any")
	refuse("accepts between 1 and 2 arg(s)", exitUsage, "endpoints", "ordering")
	refuse("endpoint not found; 'walhook endpoints' lists them", exitFault, "endpoints", "ordering", "nobody")
	refuse("endpoint not found", exitFault, "endpoints", "ordering", "nobody", "none")
	refuse("--overlap is negative", exitUsage, "endpoints", "rotate", account, "--overlap", "-1h")
	refuse("endpoint not found", exitFault, "endpoints", "rotate", "nobody")
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
	if err == nil || exitCodeOf(err) != exitUsage {
		t.Errorf("no setting: %v", err)
	}
}

func idText(id int64) string { return strconv.FormatInt(id, 10) }

// A text that the encoding of the outbox's database does not have is refused by name.
func TestEndpoints_NameWhatTheOutboxCannotHold(t *testing.T) {
	base := pgtest.Database(t)
	name := "latin_" + base.Name
	base.Exec(t, `CREATE DATABASE `+name+` ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'`)
	w := newWorld(t, &pgtest.DB{Cluster: base.Cluster, Name: name, URL: strings.Replace(base.URL, base.Name, name, 1)},
		func(int) string { return "https://example.com/hook" })
	account := idText(carrier.AccountID(0))
	for _, test := range []struct {
		want   string
		status int
		args   []string
	}{
		{`--reason "причина" has a character that the encoding`, exitUsage, []string{"endpoints", "disable", account, "--reason", "причина"}},
		{`--reason "причина" has a character that the encoding`, exitUsage, []string{"endpoints", "disable", account, "--all", "--reason", "причина"}},
		{`account not found: "日本"`, exitFault, []string{"endpoints", "disable", "日本"}},
		{`account not found: "日本"`, exitFault, []string{"endpoints", "disable", "日本", "--all", "--reason", "причина"}},
		{`account not found: "日本"`, exitFault, []string{"endpoints", "enable", "日本"}},
		{`account not found: "日本"`, exitFault, []string{"endpoints", "secret", "日本"}},
		{`account not found: "日本"`, exitFault, []string{"endpoints", "holds", "日本"}},
		{`--webhook: not found: "日"`, exitFault, []string{"endpoints", "disable", account, "--webhook", "日"}},
		{`--id: not found: "日"`, exitFault, []string{"replay", "--id", "日"}},
		{`--account: not found: "日"`, exitFault, []string{"replay", "--account", "日", "--since", "1h"}},
		{"hold not found", exitFault, []string{"endpoints", "enable", account, "--host", "//"}},
	} {
		_, err := walhook(t, append(test.args, "--outbox", w.db.URL)...)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "SQLSTATE") || exitCodeOf(err) != test.status {
			t.Errorf("walhook %q: %v, want %s", test.args, err, test.want)
		}
	}
	if _, err := walhook(t, "endpoints", "disable", account, "--reason", "é", "--outbox", w.db.URL); err != nil {
		t.Errorf("a reason that the encoding has: %v", err)
	}
}
