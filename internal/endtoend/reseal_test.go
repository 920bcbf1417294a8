package endtoend

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func keyOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// arrived is a delivery to an account.
type arrived struct {
	account string
	header  http.Header
	body    []byte
}

// TestReseal_KilledInTheMiddleHoldsOnlyWhatIsNotResealed replaces a key by another one
// while walhook runs, and kills the command in the middle. A sender with the new key then
// delivers to those that were resealed and holds the others, each alone, until the command
// has run again: nobody restarts anything, nothing is lost, and every secret stays.
func TestReseal_KilledInTheMiddleHoldsOnlyWhatIsNotResealed(t *testing.T) {
	t.Parallel()
	const accounts = 1100 // more than two of the command's transactions
	arrivals := make(chan arrived, 4*accounts)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		arrivals <- arrived{strings.TrimPrefix(r.URL.Path, "/"), r.Header, body}
	}))
	t.Cleanup(server.Close)
	s := newShop(t, accounts, func(account string) string { return server.URL + "/" + account })
	first, second := keyOf("first"), keyOf("second")
	outbox := []string{"--outbox", s.outbox.URL}
	// The secrets were stored before anybody had a key.
	if out := mustRun(t, append([]string{"endpoints", "reseal", "--secret-key", first}, outbox...)...); out != fmt.Sprintf("%d encrypted, 0 already encrypted, 0 unreadable", accounts) {
		t.Fatal(out)
	}
	startChild(t, "run", "--role", "publisher", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", s.catalog, "--listen", "off", "--secret-key", first)
	sender := func(key string) *childProcess {
		return startChild(t, "run", "--role", "sender", "--outbox", s.outbox.URL, "--listen", "off", "--allow-cidr", "127.0.0.0/8", "--secret-key", key)
	}
	old := sender(first)
	conn := s.outbox.Connect(t)
	defer conn.Close(t.Context())
	list := func(conn *pgx.Conn) map[string]string {
		stored := map[string]string{}
		rows, err := conn.Query(t.Context(), "SELECT account, secret FROM walhook.endpoint")
		var account, secret string
		if err == nil {
			_, err = pgx.ForEachRow(rows, []any{&account, &secret}, func() error { stored[account] = secret; return nil })
		}
		if err != nil {
			t.Fatal(err)
		}
		return stored
	}
	before := list(conn)

	// Somebody holds the row of a late endpoint. So the command waits in the middle.
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT FROM walhook.endpoint ORDER BY id DESC LIMIT 1 FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	reseal := append([]string{"endpoints", "reseal", "--secret-key", second, "--old-secret-key", first}, outbox...)
	killed := startChild(t, reseal...)
	watch := s.outbox.Connect(t)
	defer watch.Close(t.Context())
	eventually(t, patience, func() bool {
		var waits bool
		if err := watch.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database() AND a.query LIKE '%FROM walhook.endpoint%')").Scan(&waits); err != nil {
			t.Fatal(err)
		}
		return waits && !maps.Equal(list(watch), before) // another session may wait, too, before the command begins
	})
	_ = killed.cmd.Process.Kill()
	_ = killed.cmd.Wait()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	var moved, left string
	resealed := 0
	for account, secret := range list(conn) {
		if secret != before[account] {
			resealed, moved = resealed+1, account
		} else {
			left = account
		}
	}
	if resealed == 0 || resealed == accounts {
		t.Fatalf("%d of %d were resealed before the end", resealed, accounts)
	}

	// A sender of the old key has read every secret, and goes on.
	secrets := map[string]string{left: firstLine(mustRun(t, append([]string{"endpoints", "secret", left, "--secret-key", first}, outbox...)...)),
		moved: firstLine(mustRun(t, append([]string{"endpoints", "secret", moved, "--secret-key", second}, outbox...)...))}
	n := 5000
	change := func(account string) {
		n++
		s.db.Exec(t, fmt.Sprintf("INSERT INTO item (id, account) VALUES (%d, %s)", n, account))
	}
	arrives := func(account string) {
		t.Helper()
		verifier, err := standardwebhooks.NewWebhook(secrets[account])
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.After(patience); ; {
			select {
			case a := <-arrivals:
				if a.account == account && strings.Contains(string(a.body), fmt.Sprintf(`\"id\":%d,`, n)) {
					if err := verifier.Verify(a.body, a.header); err != nil {
						t.Errorf("account %s: %v", account, err)
					}
					return
				}
			case <-deadline:
				t.Fatalf("nothing for account %s arrived", account)
			}
		}
	}
	old.stop(t)
	present := sender(second)
	change(left)
	held := n
	eventually(t, patience, func() bool {
		return strings.Contains(mustRun(t, append([]string{"endpoints", "--json"}, outbox...)...), "--secret-key that encrypted it")
	})
	change(moved)
	arrives(moved)

	out := mustRun(t, reseal...)
	if want := fmt.Sprintf("%d encrypted, %d already encrypted, 0 unreadable", accounts-resealed, resealed); out != want {
		t.Errorf("the second run: %s, want %s", out, want)
	}
	if text := present.log(); strings.Contains(text, "every endpoint is held") {
		t.Errorf("some endpoints were not held, and the log says\n%s", text)
	}
	n, held = held, n
	arrives(left) // what was held meanwhile
	n = held
	for account := range secrets {
		if got := firstLine(mustRun(t, append([]string{"endpoints", "secret", account, "--secret-key", second}, outbox...)...)); got != secrets[account] {
			t.Errorf("account %s has another secret", account)
		}
		change(account)
		arrives(account)
	}
	if _, err := walhook(t, append([]string{"endpoints", "secret", left, "--secret-key", first}, outbox...)...); err == nil {
		t.Error("the old key still decrypts")
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// TestSetup_WithoutAKeyWarnsBeforeASecretIsStored reads in which order setup says it.
func TestSetup_WithoutAKeyWarnsBeforeASecretIsStored(t *testing.T) {
	t.Parallel()
	s := newShop(t, 1, func(string) string { return "http://127.0.0.1:9/" })
	settings := []string{"setup", "--source", s.db.URL, "--outbox", s.outbox.URL, "--slot", s.slot, "--catalog", s.catalog}
	stderr := func(args ...string) string {
		cmd := childCommand(t, append(settings, args...)...)
		var text strings.Builder
		cmd.Stderr = &text
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %s", err, text.String())
		}
		return text.String()
	}
	if text := stderr(); !strings.Contains(text, "--secret-key is not set") || !strings.Contains(text, "head -c 32 /dev/urandom | base64") {
		t.Errorf("setup says %s", text)
	}
	if text := stderr("--secret-key", keyOf("any")); strings.Contains(text, "--secret-key is not set") {
		t.Errorf("setup with a key says %s", text)
	}
	s.db.Exec(t, "SELECT pg_drop_replication_slot('"+s.slot+"')")
	s.outbox.Exec(t, "DROP SCHEMA walhook CASCADE")
	text := stderr()
	warned, stored := strings.Index(text, "--secret-key is not set"), strings.Index(text, "initial snapshot stored")
	if warned < 0 || stored < 0 || warned > stored {
		t.Errorf("the warning at %d, the snapshot at %d:\n%s", warned, stored, text)
	}
}
