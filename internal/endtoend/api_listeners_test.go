package endtoend

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"walhook/internal/carrier"
	"walhook/internal/pgtest"
)

// What is served without a token says nothing of accounts, and the metrics can
// stand on an address of their own.
func TestListeners_WithoutATokenShowNothingOfAccounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t), func(int) string { return "https://receiver.example/hook?token=hunter2" })
	w.db.Exec(t, "UPDATE walhook.endpoint SET state = 'disabled', disabled_by = 'operator', disabled_reason = 'hunter2', reason = 'hunter2'")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("hunter2-a-long-operators-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := childCommand(t, "run", "--role", "sender,api", "--outbox", w.db.URL, "--admin-token-file", token,
		"--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
	var logged bytes.Buffer
	logs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	addresses := map[string]string{}
	line := regexp.MustCompile(`"listening","address":"([^"]+)","setting":"([^"]+)"`)
	chunk := make([]byte, 4096)
	for len(addresses) < 2 {
		n, err := logs.Read(chunk)
		logged.Write(chunk[:n])
		for _, found := range line.FindAllStringSubmatch(logged.String(), -1) {
			addresses[found[2]] = found[1]
		}
		if err != nil {
			t.Fatalf("%v: %s", err, &logged)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, logs) }()
	get := func(setting, path string) (int, string) {
		t.Helper()
		response, err := http.Get("http://" + addresses[setting] + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(body)
	}
	for _, c := range []struct {
		setting, path string
		status        int
	}{
		{"listen", "/healthz", 200}, {"listen", "/readyz", 0}, {"listen", "/openapi.json", 0}, {"listen", "/v2/openapi.json", 0},
		{"listen", "/metrics", 0}, {"metrics-listen", "/metrics", 200}, {"metrics-listen", "/healthz", 404}, {"metrics-listen", "/v2/accounts/1/webhooks", 404},
	} {
		status, body := get(c.setting, c.path)
		if c.status != 0 && status != c.status {
			t.Errorf("--%s %s: %d", c.setting, c.path, status)
		}
		if metrics := strings.Contains(body, "walhook_build_info"); metrics != (c.setting == "metrics-listen" && c.path == "/metrics") {
			t.Errorf("--%s %s serves metrics: %t", c.setting, c.path, metrics)
		}
		for _, secret := range []string{"hunter2", "receiver.example", `="` + idText(carrier.AccountID(0)) + `"`, w.db.Name} {
			if strings.Contains(body, secret) {
				t.Errorf("--%s %s says %s", c.setting, c.path, secret)
			}
		}
	}
}
