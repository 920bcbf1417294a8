package pgsession

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func adapted(t *testing.T, url string) *pgconn.Config {
	t.Helper()
	cfg, err := pgconn.ParseConfig(url)
	if err == nil {
		_, err = Adapt(cfg)
	}
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return cfg
}

func TestAdapt_HostaddrIsDialledAndTheNameIsKept(t *testing.T) {
	t.Parallel()
	cfg := adapted(t, "host=a,b port=1,2 hostaddr=127.0.0.7,127.0.0.8 sslmode=verify-full")
	for i, name := range []string{"a", "b"} {
		if got, err := cfg.LookupFunc(t.Context(), name); err != nil || !slices.Equal(got, []string{fmt.Sprintf("127.0.0.%d", 7+i)}) {
			t.Errorf("%s is %v, %v", name, got, err)
		}
	}
	if cfg.TLSConfig.ServerName != "a" {
		t.Errorf("certificates are checked for %q", cfg.TLSConfig.ServerName)
	}
}

func TestAdapt_LoadBalancingKeepsTogetherWhatBelongsToAHost(t *testing.T) {
	t.Parallel()
	first := map[string]bool{}
	for range 60 {
		cfg := adapted(t, "postgres://a,b,c/d?load_balance_hosts=random&sslmode=prefer")
		hosts := hostsOf(cfg)
		first[hosts[0].Host] = true
		for i := 0; i < len(hosts); i += 2 {
			if hosts[i].Host != hosts[i+1].Host || hosts[i].TLSConfig == nil || hosts[i+1].TLSConfig != nil {
				t.Fatalf("host %s, then %s: each is tried with TLS, then without", hosts[i].Host, hosts[i+1].Host)
			}
		}
	}
	if len(first) != 3 {
		t.Errorf("the first one was only ever %v", first)
	}
}

func TestAdapt_TLSVersionsHoldForEveryHost(t *testing.T) {
	t.Parallel()
	for _, h := range hostsOf(adapted(t, "postgres://a,b/d?sslmode=require&ssl_min_protocol_version=TLSv1.3")) {
		if h.TLSConfig.MinVersion != tls.VersionTLS13 {
			t.Errorf("%s accepts %x", h.Host, h.TLSConfig.MinVersion)
		}
	}
}

func TestAdapt_RequirepeerTurnsDownAnothersSocket(t *testing.T) {
	t.Parallel()
	if !hasPeer {
		t.Skip("this system does not report the owner of a socket")
	}
	path := t.TempDir() + "/s"
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := adapted(t, "host=/tmp requirepeer=nobody-of-that-name").AfterNetConnect(t.Context(), nil, conn); err == nil {
		t.Error("a socket of another user's is taken")
	}
}

func TestAdapt_SendsTheServerNothingOfLibpqs(t *testing.T) {
	t.Parallel()
	var words []string
	for _, one := range parameters {
		value := "1"
		switch one.name {
		case "hostaddr":
			value = "127.0.0.1"
		case "gssencmode", "load_balance_hosts":
			value = "disable"
		case "ssl_min_protocol_version", "ssl_max_protocol_version":
			value = "TLSv1.2"
		case "requiressl":
			value = "0"
		}
		if strings.HasPrefix(one.name, "sslcrl") || strings.HasPrefix(one.name, "scram_") || strings.HasPrefix(one.name, "oauth_") {
			continue // refused
		}
		words = append(words, one.name+"="+value)
	}
	cfg := adapted(t, "host=h sslmode=disable "+strings.Join(words, " ")+" pool_max_conns=3")
	if len(cfg.RuntimeParams) > 0 {
		t.Errorf("the server is sent %v", cfg.RuntimeParams)
	}
}

func TestReason_NamesTheCauseFirst(t *testing.T) {
	t.Parallel()
	refused := func(text string) error {
		cfg := adapted(t, text)
		cfg.DialFunc = func(_ context.Context, _, address string) (net.Conn, error) {
			return nil, errors.New("no way to " + address)
		}
		_, err := pgconn.ConnectConfig(t.Context(), cfg)
		return Reason(err)
	}
	if got, want := refused("postgres://127.0.0.1:1,127.0.0.2:2/d?sslmode=disable").Error(),
		"dial error: no way to 127.0.0.1:1 (127.0.0.1:1); dial error: no way to 127.0.0.2:2 (127.0.0.2:2)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := refused("postgres://127.0.0.1:1/d").Error(); strings.Count(got, "no way") != 1 {
		t.Errorf("the same is said twice: %s", got)
	}
}
