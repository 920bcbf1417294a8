package endtoend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// steeringText is what a receiver or a role of a database may put into a text:
// clear the screen, set the title, write over the line, turn it around.
const steeringText = "\x1b[2J\x1b]0;owned\x07\r\x7f\u009b31m\u202egnp\u2066.\u200f\u200b\u200d\u2060\u00ad\ufeff\U000e0041"

// Whatever the databases and receivers hold, no command of the running program
// writes a control character to the terminal but line ends and tabs.
func TestTerminal_NoCommandPrintsControlCharacters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t), func(i int) string { return "https://example.com/hook" })
	account := idText(carrier.AccountID(0))
	exec := func(sql string) {
		t.Helper()
		if _, err := w.conn.Exec(t.Context(), sql, steeringText); err != nil {
			t.Fatal(err)
		}
	}
	exec(`UPDATE walhook.endpoint SET state = 'disabled', disabled_by = 'operator', disabled_reason = $1, reason = $1, secret = $1, url = 'https://' || $1 || '/'`)
	exec(`INSERT INTO walhook.gap (from_lsn, to_lsn, reason) VALUES ('0/1', '0/2', $1)`)
	w.db.Exec(t, fmt.Sprintf(`CREATE TABLE %q (id int PRIMARY KEY)`, "t"+steeringText))
	catalog := t.TempDir() + "/catalog.yaml"
	if err := os.WriteFile(catalog, fmt.Appendf(nil, "account: {table: users, id: id, url: web_hook_url}\nschemas: {dids: {table: dids, owner: user_id, fields: [id], %s: 1}}\n", "x"+strings.ReplaceAll(steeringText[1:], "\r", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	named := t.TempDir() + "/named.yaml" // a table, and a column of it, that hold what steers
	table, err := json.Marshal("public.\"t" + steeringText + "\"")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(named, fmt.Appendf(nil, "account: {table: users, id: id, url: web_hook_url}\nschemas: {dids: {table: %s, owner: user_id, fields: [id]}}\n", table), 0o600); err != nil {
		t.Fatal(err)
	}
	w.db.Exec(t, fmt.Sprintf(`ALTER PUBLICATION walhook ADD TABLE %q`, "t"+steeringText))
	stranger, err := url.Parse(w.db.URL)
	if err != nil {
		t.Fatal(err)
	}
	stranger.User = url.User("r" + steeringText)
	nowhere := *stranger
	nowhere.User, nowhere.Path = url.User("postgres"), "/d"+steeringText
	db := []string{"--source", w.db.URL, "--slot", w.slot}
	outbox := []string{"--outbox", w.db.URL}
	for _, args := range [][]string{
		append([]string{"endpoints"}, outbox...), append([]string{"endpoints", "--json"}, outbox...),
		append([]string{"endpoints", "secret", account}, outbox...), append([]string{"endpoints", "enable", account}, outbox...),
		append([]string{"endpoints", "disable", account, "--reason", steeringText[1:]}, outbox...),
		append([]string{"endpoints", "ordering", account}, outbox...), append([]string{"endpoints", "rotate", account}, outbox...),
		append([]string{"endpoints", "secret", steeringText}, outbox...), append([]string{"replay", account, "--dry-run", "--since", "1h"}, outbox...),
		append([]string{"status"}, db...), append([]string{"status", "--json"}, db...), append([]string{"doctor"}, db...), append([]string{"doctor", "--json"}, db...),
		append([]string{"setup", "--log-format", "console"}, db...), append([]string{"setup", "--dry-run"}, db...),
		{"schemas", "--catalog", catalog}, {"run", "--catalog", catalog, "--source", w.db.URL}, {"run", "--role", steeringText},
		{"endpoints", "--outbox", "postgres://127.0.0.1:1/" + "x"}, {steeringText}, {"endpoints", "--" + steeringText[1:]},
		{"listen", "--addr", steeringText},
		append([]string{"doctor", "--catalog", named}, db...), append([]string{"setup", "--dry-run", "--catalog", named}, db...),
		append([]string{"setup", "--dry-run", "--publication", "p" + steeringText}, db...), append([]string{"doctor", "--publication", "p" + steeringText}, db...),
		{"doctor", "--source", stranger.String()}, {"setup", "--dry-run", "--source", stranger.String()}, {"status", "--source", nowhere.String()},
		{"endpoints", "--outbox", nowhere.String()}, {"teardown", "--source", nowhere.String()},
		{"status", "--source", w.db.URL, "--slot", "s" + steeringText}, {"teardown", "--source", w.db.URL, "--slot", "s" + steeringText},
		append([]string{"teardown"}, db...),
	} {
		stdout, stderr := runWalhook(t, args...)
		for _, text := range []string{stdout, stderr} {
			if at := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && r != '\t' && (steers(r) || r == utf8.RuneError) }); at >= 0 {
				t.Errorf("walhook %s prints %q", strings.Join(args[:min(2, len(args))], " "), text[max(0, at-40):min(len(text), at+40)])
			}
			if slicesLast(args) == "--json" && text == stdout && !json.Valid([]byte(text)) {
				t.Errorf("walhook %s prints no JSON", args[0])
			}
		}
	}
	if stdout, _ := runWalhook(t, append([]string{"endpoints"}, outbox...)...); !strings.Contains(stdout, `\u001b[2J`) || !strings.Contains(stdout, `\u202egnp`) {
		t.Errorf("what steers a terminal is not shown escaped:\n%s", stdout)
	}
}

func slicesLast(args []string) string { return args[len(args)-1] }

// runWalhook runs the program, which has a while.
func runWalhook(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	_ = cmd.Run() // some fail, and say why
	return out.String(), errOut.String()
}

// steers says whether a character is a control or a format character, or a
// separator of lines.
func steers(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }

// What a receiver's caller sends, and what comes in his headers, does not steer
// the terminal of whoever listens.
func TestTerminal_ListenPrintsNoControlCharacters(t *testing.T) {
	t.Parallel()
	address := loopback.Address(t)
	stdout, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	cmd := childCommand(t, "listen", "--addr", address)
	cmd.Stdout, cmd.Stderr = stdout, stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() }()
	data, err := json.Marshal(steeringText[1:])
	if err != nil {
		t.Fatal(err)
	}
	raw := `{"type":"update","schema":"` + strings.NewReplacer("\x1b", "", "\r", "", "\x7f", "", "\a", "").Replace(steeringText) + `","data":` + string(data) + `}`
	url := "http://" + address + "/%1b%5b2J/%e2%80%ae"
	eventually(t, 10*time.Second, func() bool {
		response, err := http.Post(url, "application/json", strings.NewReader(raw))
		if err == nil {
			response.Body.Close()
		}
		return err == nil
	})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("\x1b]0;owned\a \u202e\u200b\u2066"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("webhook-id", "\u009b31m\u202e\u200b")
	request.Header.Set("content-type", "text/\u202eplain")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	var text []byte
	eventually(t, 10*time.Second, func() bool {
		text, _ = os.ReadFile(stdout.Name())
		return strings.Contains(string(text), `\u200b`)
	})
	if at := strings.IndexFunc(string(text), func(r rune) bool { return r != '\n' && r != '\t' && (steers(r) || r == utf8.RuneError) }); at >= 0 {
		t.Errorf("listen prints %q", text[max(0, at-40):min(len(text), at+40)])
	}
}

// The number that log lines call endpoint is what endpoints, its JSON and the API
// call it too.
func TestEndpoints_ShowTheNumberThatLogLinesName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t), func(int) string { return "https://example.com/hook" })
	var number int64
	account := idText(carrier.AccountID(0))
	if err := w.conn.QueryRow(t.Context(), `SELECT id FROM walhook.endpoint WHERE account = $1`, account).Scan(&number); err != nil {
		t.Fatal(err)
	}
	stdout, _ := runWalhook(t, "endpoints", "--outbox", w.db.URL)
	if header, _, _ := strings.Cut(stdout, "\n"); !strings.HasPrefix(header, "ENDPOINT  ACCOUNT") || !regexp.MustCompile(fmt.Sprintf(`(?m)^%d +%s `, number, account)).MatchString(stdout) {
		t.Errorf("endpoint %d of account %s is not named so:\n%s", number, account, stdout)
	}
	var list []struct {
		Endpoint int64
		Account  string
	}
	stdout, _ = runWalhook(t, "endpoints", "--json", "--outbox", w.db.URL)
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || len(list) == 0 || list[0].Endpoint == 0 {
		t.Errorf("%v, %v", list, err)
	}
}
