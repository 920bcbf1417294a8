package endtoend

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"walhook/internal/carrier"
	"walhook/internal/loopback"
	"walhook/internal/pgtest"
)

// What is left of a password that is not percent-encoded is read as a host, a
// database or a parameter: no command shows any of it.
func TestDatabaseURL_NoCommandShowsAPasswordThatIsNotPercentEncoded(t *testing.T) {
	t.Parallel()
	url := "postgres://wh:s3cr@tPART#x@127.0.0.1:1/c"
	file := filepath.Join(t.TempDir(), "url")
	yaml := filepath.Join(t.TempDir(), "walhook.yaml")
	for path, text := range map[string]string{file: url, yaml: "source: " + url} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"run", "--source", url}, {"doctor", "--source", url}, {"status", "--source", url}, {"status", "--outbox", url},
		{"run", "--source-file", file}, {"doctor", "--outbox-file", file}, {"doctor", "--config", yaml},
	} {
		wantFault(t, exitUsage, []string{"Percent-encode special characters of user name and password"}, args...)
		if out, _ := childCommand(t, args...).CombinedOutput(); bytes.Contains(out, []byte("tPART")) {
			t.Errorf("%v shows the password:\n%s", args, out)
		}
	}
}

// Whatever libpq takes in a URL, walhook takes or says that it does not use it; a
// server is never asked for it. What would make the connection weaker is refused.
func TestDatabaseURL_ParametersOfLibpqAreTakenOrNamed(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, carrier.Tables)
	all := "keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3&tcp_user_timeout=30000&gssencmode=prefer&fallback_application_name=x" +
		"&sslcompression=1&sslnegotiation=postgres&channel_binding=prefer&requirepeer=postgres&load_balance_hosts=random&target_session_attrs=read-write&passfile=/nonexistent" +
		"&hostaddr=127.0.0.1&application_name=mine&client_encoding=LATIN1&ssl_min_protocol_version=TLSv1.2&ssl_max_protocol_version=TLSv1.3&gssdelegation=0&pool_max_conns=9&connect_timeout=7&krbsrvname=postgres&sslsni=1&require_auth=password,scram-sha-256"
	url := db.URL + "&" + all
	if !strings.Contains(db.URL, "?") {
		url = db.URL + "?" + all
	}
	cmd := childCommand(t, "setup", "--source", url, "--slot", "libpq_"+db.Name)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := "walhook ignores these parameters of the URL or of PG… variables: application_name, fallback_application_name, client_encoding"; !strings.Contains(strings.ReplaceAll(string(out), "sslcompression, ", ""), want) || !strings.Contains(string(out), "sslcompression") {
		t.Errorf("what has no effect is not named:\n%s", out)
	}
	if strings.Contains(string(out), "keepalives") {
		t.Errorf("what has an effect is named as if it had none:\n%s", out)
	}
	for _, wrong := range []struct{ parameter, want string }{
		{"sslcrl=/etc/crl", "sslcrl: walhook checks no revocation lists"},
		{"gssencmode=require", "gssencmode: walhook does not support GSSAPI encryption"},
		{"keepalives_idle=soon", "keepalives_idle: want a whole number"},
		{"hostaddr=1.2.3.4,5.6.7.8", "hostaddr: 2 addresses for 1 hosts"},
		{"load_balance_hosts=yes", "load_balance_hosts: want disable or random"},
		{"ssl_min_protocol_version=3", "ssl_min_protocol_version: want TLSv1 or"},
		{"target_session_attrs=standby", "needs the primary"},
	} {
		wantFault(t, exitUsage, []string{wrong.want}, "setup", "--source", "postgres://walhook:pw@127.0.0.1/x?"+wrong.parameter)
	}
}

// The first words of an error are its cause, also where nothing is said of TLS
// and the server has none, and of several hosts each is named.
func TestDatabaseURL_AnErrorOfConnectingHasItsCauseFirst(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	unset := strings.NewReplacer("?sslmode=disable", "", "sslmode=disable", "").Replace(db.URL)
	dead := loopback.Address(t)
	for _, c := range []struct{ name, url, first string }{
		{"password", withUser(t, unset, "nobody_there", "wrong"), `walhook: the source refuses the role or its password (password authentication failed for user "nobody_there"`},
		{"database", strings.Replace(unset, db.Name, "nowhere", 1), `walhook: the source database does not exist (database "nowhere" does not exist`},
		{"parameter", unset + "?schema=public", `walhook: the source does not know a parameter of its URL (unrecognized configuration parameter "schema"`},
		{"nobody listens", "postgres://u@" + dead + "/d", "walhook: connect to the source: dial error: "},
	} {
		out, err := childCommand(t, "setup", "--outbox", db.URL, "--slot", "cause_"+db.Name, "--source", c.url).CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.first) || strings.Contains(string(out), "refused TLS") {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
	}
}

// An error that a person can mend says how, and says it once.
func TestDatabaseURL_AnErrorOfConnectingSaysWhatToDo(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, carrier.Tables+"; CREATE ROLE plain_"+db.Name+" LOGIN PASSWORD 'pw'")
	tls := strings.Replace(db.URL, "sslmode=disable", "sslmode=require", 1)
	plain := withUser(t, db.URL, "plain_"+db.Name, "pw")
	wantFault(t, exitFault, []string{"the server does not speak TLS", "turn ssl on there, or choose another sslmode in the URL"}, "setup", "--source", tls)
	wantFault(t, exitUsage, []string{"--dry-run and --accept-gap exclude each other"}, "setup", "--source", db.URL, "--dry-run", "--accept-gap")
	if _, stderr := runWalhook(t, "setup", "--source", plain); strings.Count(stderr, "lacks REPLICATION") != 1 || strings.Count(stderr, "ALTER ROLE") != 1 {
		t.Errorf("printed %s", stderr)
	}
}
