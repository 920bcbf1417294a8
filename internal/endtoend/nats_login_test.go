package endtoend

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
)

// natsIssuer makes users of an account of NATS, as nsc does.
type natsIssuer struct {
	resolver server.MemAccResolver
	operator *jwt.OperatorClaims
	system   string
	account  nkeys.KeyPair
}

func newNATSIssuer(t *testing.T) *natsIssuer {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	i := &natsIssuer{}
	operator, err := nkeys.CreateOperator()
	must(err)
	name, err := operator.PublicKey()
	must(err)
	i.operator = jwt.NewOperatorClaims(name)
	account := func(streams bool) nkeys.KeyPair {
		t.Helper()
		pair, err := nkeys.CreateAccount()
		must(err)
		name, err := pair.PublicKey()
		must(err)
		claims := jwt.NewAccountClaims(name)
		if streams {
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
		}
		text, err := claims.Encode(operator)
		must(err)
		must(i.resolver.Store(name, text))
		return pair
	}
	i.account = account(true)
	i.system, err = account(false).PublicKey()
	must(err)
	return i
}

// creds are a user's credentials, as 'nsc generate creds' writes them.
func (i *natsIssuer) creds(t *testing.T, by nkeys.KeyPair, expires time.Time, publish, subscribe string) string {
	t.Helper()
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	name, err := user.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.NewUserClaims(name)
	if !expires.IsZero() {
		claims.Expires = expires.Unix()
	}
	claims.Pub.Allow.Add(strings.Fields(publish)...)
	claims.Sub.Allow.Add(subscribe)
	text, err := claims.Encode(by)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(text, seed)
	if err != nil {
		t.Fatal(err)
	}
	return string(creds)
}

// replaceFile puts a file in another's place at once.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	writeFile(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// Credentials of an operator's users: what is wrong with them has its reason, and a file that
// replaces them counts without a restart: at the next connection, and where the server denies
// something at once.
func TestNATSFeed_SignsInWithTheFileAsItIsNow(t *testing.T) {
	t.Parallel()
	const subjects, doctorToo, inbox = "walhook.>", "walhook.> $JS.API.STREAM.NAMES $JS.API.STREAM.INFO.*", "_INBOX.>"
	issuer := newNATSIssuer(t)
	stranger, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	c := newNATSCluster(t, 1, func(o *server.Options) {
		o.TrustedOperators, o.AccountResolver, o.SystemAccount = []*jwt.OperatorClaims{issuer.operator}, &issuer.resolver, issuer.system
	})
	folder := t.TempDir()
	file, operator := filepath.Join(folder, "walhook.creds"), filepath.Join(folder, "operator.creds")
	writeFile(t, operator, issuer.creds(t, issuer.account, time.Time{}, ">", ">"))
	js := c.client(t, nats.UserCredentials(operator))
	c.stream(t, js, jetstream.StreamConfig{})

	writeFile(t, file, issuer.creds(t, stranger, time.Time{}, subjects, inbox))
	w := newOperatorWorld(t, "--nats-credentials", file, "--retry-schedule", strings.Repeat("300ms,", 1000)+"1s", "--attempt-timeout", "5s")
	w.feeds(t, "add", "stream", "--url", c.url())
	next := 0
	insert := func() {
		next++
		w.db.Exec(t, fmt.Sprintf(`INSERT INTO dids (id, user_id, number) VALUES (%d, 7, '1')`, next))
	}
	doctor := func() string {
		out, _ := walhook(t, "doctor", "--source", w.db.URL, "--slot", "feeds_"+w.db.Name, "--nats-credentials", file)
		_, about, _ := strings.Cut(out, "feeds.nats")
		return about
	}
	insert()
	w.awaitDetail(t, "nats_refused", "Authorization Violation")
	replaceFile(t, file, issuer.creds(t, issuer.account, time.Now().Add(-time.Hour), subjects, inbox))
	w.afresh(t, "stream")
	w.awaitDetail(t, "nats_refused", "put new ones in its place")
	if about := doctor(); !strings.Contains(about, "put new ones in its place") || !strings.Contains(about, "walhook reasons nats_refused") {
		t.Errorf("of expired credentials doctor says %s", about)
	}
	replaceFile(t, file, "-----BEGIN NATS USER JWT-----\nhalf of")
	w.afresh(t, "stream")
	eventually(t, patience, func() bool { return w.feed(t, "stream")["held_reason"] == "nats_credentials" })

	replaceFile(t, file, issuer.creds(t, issuer.account, time.Time{}, "other.>", inbox))
	w.awaitDetail(t, "nats_permission", `Permissions Violation for Publish to "walhook.7.dids.insert"`)
	// The connection is up and stays up; the new file counts all the same.
	replaceFile(t, file, issuer.creds(t, issuer.account, time.Time{}, subjects, "other.>"))
	w.awaitDetail(t, "nats_inbox", "the user may not subscribe to _INBOX.>")
	w.afresh(t, "stream")
	soon := time.Now().Add(10 * time.Second)
	replaceFile(t, file, issuer.creds(t, issuer.account, soon, doctorToo, inbox))
	awaitMessages(t, js, "WALHOOK", 1)
	if about := doctor(); !strings.Contains(about, "expire on "+soon.UTC().Format("2006-01-02")) || !strings.Contains(about, "nsc edit user") {
		t.Errorf("of credentials that expire soon doctor says %s", about)
	}

	// Replaced in time, so that their end is nobody's trouble.
	replaceFile(t, file, issuer.creds(t, issuer.account, time.Time{}, subjects, inbox))
	before := w.count(t, "nats_refused")
	eventually(t, patience, func() bool { return time.Now().After(soon.Add(time.Second)) && len(walhookClients(t, c)) == 1 })
	insert()
	awaitMessages(t, js, "WALHOOK", 2)
	if after := w.count(t, "nats_refused"); after != before {
		t.Errorf("%d attempts were refused although the file was replaced in time", after-before)
	}
}

// count counts the attempts with a reason.
func (w *operatorWorld) count(t *testing.T, reason string) (n int) {
	t.Helper()
	if err := w.db.Connect(t).QueryRow(t.Context(), "SELECT count(*) FROM walhook.attempt WHERE reason = $1", reason).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// walhookClients are the connections of walhook.
func walhookClients(t *testing.T, c *natsCluster) (all []*server.ConnInfo) {
	t.Helper()
	for _, s := range c.servers {
		list, err := s.Connz(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, conn := range list.Conns {
			if strings.HasPrefix(conn.Name, "walhook/") {
				all = append(all, conn)
			}
		}
	}
	return all
}

// The seed of an nkey, too, is read for each connection.
func TestNATSFeed_SignsInWithAnotherSeed(t *testing.T) {
	t.Parallel()
	seedOf := func() (seed, name string) {
		pair, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		text, err := pair.Seed()
		if err != nil {
			t.Fatal(err)
		}
		name, err = pair.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return string(text), name
	}
	seed, name := seedOf()
	users := []*server.User{{Username: "operator", Password: "operator"}}
	c := newNATSCluster(t, 1, func(o *server.Options) { o.Users, o.Nkeys = users, []*server.NkeyUser{{Nkey: name}} })
	js := c.client(t, nats.UserInfo("operator", "operator"))
	c.stream(t, js, jetstream.StreamConfig{})
	file := filepath.Join(t.TempDir(), "seed")
	writeFile(t, file, seed+"\n")
	w := newOperatorWorld(t, "--nats-credentials", file, "--retry-schedule", strings.Repeat("300ms,", 1000)+"1s", "--attempt-timeout", "5s")
	w.feeds(t, "add", "stream", "--url", c.url())
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (1, 7, '1')`)
	awaitMessages(t, js, "WALHOOK", 1)

	seed, name = seedOf()
	c.options[0].Nkeys = []*server.NkeyUser{{Nkey: name}}
	if err := c.servers[0].ReloadOptions(c.options[0].Clone()); err != nil {
		t.Fatal(err)
	}
	w.db.Exec(t, `INSERT INTO dids (id, user_id, number) VALUES (2, 7, '1')`)
	w.awaitReason(t, "retry", "nats_refused", 1)
	replaceFile(t, file, seed)
	w.afresh(t, "stream")
	awaitMessages(t, js, "WALHOOK", 2)
}
