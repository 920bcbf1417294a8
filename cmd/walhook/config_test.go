package main

import (
	"encoding/base64"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"walhook/portal"
	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/sender/deliver"
)

const testURL = "postgres://carrier@127.0.0.1:5432/carrier"

// load reads the settings of a command that registers names, or all of them.
func load(t *testing.T, args, environ []string, names ...string) (settings, error) {
	t.Helper()
	if len(names) == 0 {
		names = settingNames()
	}
	cmd := &cobra.Command{Use: "test"}
	addSettings(cmd, names...)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return readSettings(cmd.Flags(), func() []string { return environ })
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "walhook.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSettings_DefaultsAreTheContracts(t *testing.T) {
	got, err := load(t, []string{"--source", testURL}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		Source: testURL, Outbox: testURL, Slot: "walhook", Publication: "walhook",
		Catalog: catalog.Carrier(), Roles: roles{Publisher: true, Sender: true, API: true},
		Messages:   schemas.Messages{"walhook", "walhook.event"},
		AllowPorts: []deliver.PortRange{{First: 80, Last: 80}, {First: 443, Last: 443}, {First: 1024, Last: 65535}},
		Listen:     "127.0.0.1:8480", HTTPClient: deliver.ClientWalhook, Retention: 168 * time.Hour, AttemptTimeout: 20 * time.Second,
		RetrySchedule: []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute,
			30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 16 * time.Hour},
		MaxEventBytes: 16 << 20, Trace: traceConfig{sample: 0.01}, LogLevel: zapcore.InfoLevel, LogFormat: "json",
		Portal: true, PortalURL: &url.URL{Scheme: "http", Host: "127.0.0.1:8480", Path: "/portal/"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, config := range []interface{ Validate() error }{got.cdcConfig(), got.outboxConfig(), got.senderConfig()} {
		if err := config.Validate(); err != nil {
			t.Errorf("%T: %v", config, err)
		}
	}
}

func TestSettings_EverySourceCanSetEverything(t *testing.T) {
	key := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	catalog := configFile(t, "account: {table: public.users, id: id, url: hook}\n"+
		"schemas: {dids: {table: public.dids, owner: user_id, fields: [id]}}\n")
	const picture = `<svg xmlns="http://www.w3.org/2000/svg"/>`
	logo := configFile(t, picture)
	texts := map[string]string{
		"source": testURL, "outbox": "postgres://outbox@127.0.0.1/outbox", "slot": "carrier_1", "publication": "feed",
		"catalog": catalog, "role": "publisher, api", "listen": "off", "metrics-listen": "127.0.0.1:9100", "allow-cidr": "127.0.0.0/8, 10.1.2.3/8",
		"trusted-proxies": "10.0.0.7/32", "tls-cert": "cert.pem", "tls-key": "key.pem",
		"client-cert": "client.pem", "client-key": "client.key", "client-certs": "hooks.example=hooks.pem:hooks.key, *.bank.example=bank.pem:bank.key", "ca-file": "ca.pem", "nats-credentials": "nats.creds, nats-1.internal=other.creds",
		"deny-cidr": "198.51.100.0/24,192.0.2.1/32", "allow-ports": "443, 8000-8999", "messages": "carrier,carrier.event",
		"egress-address": "192.0.2.1", "http-client": "net/http", "retention": "48h", "attempt-timeout": "7s", "retry-schedule": "1s,2s",
		"max-event-bytes": "2048", "admin-token": "a long operator token", "secret-key": key, "old-secret-key": key,
		"trace-endpoint": "http://192.0.2.2:4318/v1/traces", "trace-sample": "0.5", "log-level": "debug", "log-format": "console",
		"portal": "on", "portal-url": "https://hooks.example/portal", "portal-name": "Acme", "portal-accent": "#9a3412", "portal-support": "mailto:help@acme.example",
		"portal-logo": logo, "portal-frame-ancestors": "https://my.acme.example, https://Acme.example:8443/",
	}
	for i := range settingTable {
		if one := &settingTable[i]; one.secretOf() == "" && texts[one.name] == "" {
			t.Fatalf("setting %s is not tried", one.name)
		}
	}
	var args, environ []string
	var file strings.Builder
	for name, text := range texts {
		args = append(args, "--"+name+"="+text)
		environ = append(environ, envName(name)+"="+text)
		if strings.HasPrefix(text, "#") { // otherwise a comment
			text = "'" + text + "'"
		}
		file.WriteString(name + ": " + text + "\n")
	}
	path := configFile(t, file.String())
	brand := portal.Brand{Name: "Acme", Support: "mailto:help@acme.example"}
	brand.Accent, _ = portal.ParseAccent("#9a3412")
	brand.Logo, _ = portal.ReadLogo([]byte(picture))
	for name, from := range map[string]struct{ args, environ []string }{
		"flags":                    {args: args},
		"environment":              {environ: environ},
		"file":                     {args: []string{"--config", path}},
		"file by the environment":  {environ: []string{"WALHOOK_CONFIG=" + path}},
		"environment and the file": {args: []string{"--config", path}, environ: environ},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := load(t, from.args, from.environ)
			if err != nil {
				t.Fatal(err)
			}
			if got.Catalog.Schema("dids") == nil || len(got.Catalog.Schemas) != 1 {
				t.Errorf("catalog: %+v", got.Catalog)
			}
			got.Catalog = nil
			want := settings{
				Source: testURL, Outbox: "postgres://outbox@127.0.0.1/outbox", Slot: "carrier_1", Publication: "feed",
				Roles:         roles{Publisher: true, API: true},
				MetricsListen: "127.0.0.1:9100", TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.7/32")}, TLSCert: "cert.pem", TLSKey: "key.pem",
				ClientCert: "client.pem", ClientKey: "client.key", CAFile: "ca.pem",
				NATSCredentials: []deliver.NATSCredentials{{File: "nats.creds"}, {Host: "nats-1.internal", File: "other.creds"}},
				ClientCerts:     []deliver.ClientCertificate{{Host: "hooks.example", Cert: "hooks.pem", Key: "hooks.key"}, {Host: "*.bank.example", Cert: "bank.pem", Key: "bank.key"}},
				AllowCIDR:       []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")},
				DenyCIDR:        []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("192.0.2.1/32")},
				Messages:        schemas.Messages{"carrier", "carrier.event"},
				AllowPorts:      []deliver.PortRange{{First: 443, Last: 443}, {First: 8000, Last: 8999}},
				EgressAddress:   netip.MustParseAddr("192.0.2.1"), HTTPClient: deliver.ClientNetHTTP, Retention: 48 * time.Hour, AttemptTimeout: 7 * time.Second,
				RetrySchedule: []time.Duration{time.Second, 2 * time.Second}, MaxEventBytes: 2048,
				AdminToken: "a long operator token", SecretKey: []byte(strings.Repeat("k", 32)), OldSecretKey: []byte(strings.Repeat("k", 32)),
				Trace: traceConfig{endpoint: "http://192.0.2.2:4318/v1/traces", sample: 0.5}, LogLevel: zapcore.DebugLevel, LogFormat: "console",
				Portal: true, PortalURL: &url.URL{Scheme: "https", Host: "hooks.example", Path: "/portal/"},
				PortalBrand: brand, PortalFrameAncestors: []string{"https://my.acme.example", "https://acme.example:8443"},
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestSettings_FlagsWinOverEnvironmentOverFile(t *testing.T) {
	path := configFile(t, "slot: file\npublication: file\nretention: 50h\nallow-cidr: [10.0.0.0/8, 127.0.0.0/8]\nrole:\n")
	got, err := load(t,
		[]string{"--source", testURL, "--config", path, "--slot", "flag"},
		[]string{"WALHOOK_SLOT=environment", "WALHOOK_PUBLICATION=environment", "WALHOOK_RETENTION=", "PATH=/bin"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Slot != "flag" || got.Publication != "environment" || got.Retention != 50*time.Hour || len(got.AllowCIDR) != 2 {
		t.Errorf("slot %s, publication %s, retention %s, allow-cidr %v", got.Slot, got.Publication, got.Retention, got.AllowCIDR)
	}
	if !got.Roles.Publisher || !got.Roles.Sender {
		t.Errorf("an empty key is not the default: %+v", got.Roles)
	}
}

func TestSettings_ListsEveryFaultWithItsPlace(t *testing.T) {
	path := configFile(t, "attempt-timeout: 20\nallow_cidr: 10.0.0.0/8\ncolour: red\nretry-schedule: {first: 1s}\n")
	_, err := load(t,
		[]string{"--config", path, "--slot", "Big-Slot", "--role", "publisher,reader", "--listen", "8480", "--egress-address", "eth0", "--http-client", "curl"},
		[]string{"WALHOOK_RETENTION=5m", "WALHOOK_ALLOW_CIDR=10.0.0.1", "WALHOOK_MAX_EVENT_BYTES=1MB", "WALHOOK_LOG_LEVEL=loud"})
	for _, want := range []string{
		"--slot: ", "--role: \"reader\": want all, publisher, sender or api", "--listen: ", "--egress-address: ", "--http-client: ",
		"WALHOOK_RETENTION: retention 5m0s: want 1h or more", "WALHOOK_ALLOW_CIDR: ", "WALHOOK_MAX_EVENT_BYTES: ", "WALHOOK_LOG_LEVEL: ",
		"attempt-timeout in " + path, "allow_cidr in " + path + ": no such setting, want allow-cidr", "colour in " + path, "retry-schedule.first in " + path,
		"source is missing: set --source or WALHOOK_SOURCE",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
	if got := exitStatus(t.Context(), err); got != exitUsage {
		t.Errorf("exit status %d, want %d", got, exitUsage)
	}
}

func TestSettings_OfThePortalAreRefusedWithWhatToDo(t *testing.T) {
	path := configFile(t, "portal-accent: #3451c6\n")
	page := configFile(t, "<html></html>")
	for _, c := range []struct{ arg, want string }{
		{"--portal-name=" + strings.Repeat("x", 61), "--portal-name: want a name of at most 60 characters"},
		{"--portal-accent=red;}body{", `--portal-accent: "red;}body{": want a colour of six hexadecimal digits, such as #3451c6`},
		{"--portal-support=javascript:alert(1)", "--portal-support: want a link such as https://example.com/help or mailto:help@example.com"},
		{"--portal-frame-ancestors=https://*.example.com", "--portal-frame-ancestors: \"https://*.example.com\": a wildcard is refused"},
		{"--portal-frame-ancestors=http://my.example.com", "want https:// with a host"},
		{"--portal-logo=" + page, "--portal-logo: file " + page + ": want a picture: PNG, JPEG, WebP or SVG"},
		{"--portal-logo=/nowhere/logo.svg", "--portal-logo: file /nowhere/logo.svg: no such file or directory"},
		{"--portal-logo=/dev/null", "it is not a regular file"},
		{"--portal-logo=a,b,c", "want one file, or two with a comma"},
		{"--config=" + path, "portal-accent in " + path + " is empty: put the colour into quotes"},
	} {
		_, err := load(t, []string{"--source", testURL, c.arg}, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || exitStatus(t.Context(), err) != exitUsage {
			t.Errorf("%s: %v", c.arg, err)
		}
	}
	got, err := load(t, []string{"--source", testURL, "--portal-accent", "#ffe600"}, nil)
	if err != nil || len(got.warnings) != 1 || !strings.Contains(got.warnings[0], "--portal-accent: text of the colour #ffe600 cannot be read on a light background, so links are #") {
		t.Errorf("%v, warnings %q", err, got.warnings)
	}
}

func TestSettings_NeverEchoSecrets(t *testing.T) {
	const secret = "hunter2"
	for name, from := range map[string]struct{ args, environ []string }{
		"source, bad port":              {args: []string{"--source", "postgres://u:" + secret + "@host:port/db"}},
		"source, bad escape":            {args: []string{"--source", "postgres://u:%zz" + secret + "@host/db"}},
		"source, password with a slash": {args: []string{"--source", "postgres://u:a/" + secret + "@host/db"}},
		"source, no URL":                {args: []string{"--source", secret}},
		"outbox":                        {environ: []string{"WALHOOK_OUTBOX=postgres://u:" + secret + "@host:port/db"}},
		"secret key":                    {environ: []string{"WALHOOK_SECRET_KEY=" + secret}},
		"file without a colon":          {args: []string{"--config", configFile(t, secret)}},
		"file with a bad type":          {args: []string{"--config", configFile(t, "source: ["+secret+"\n")}},
		"file, nested":                  {args: []string{"--config", configFile(t, "source: [["+secret+"]]\n")}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, from.args, from.environ)
			if err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("got %v", err)
			}
			t.Log(err)
		})
	}
}

func TestSettings_AskForWhatTheCommandReads(t *testing.T) {
	for name, test := range map[string]struct {
		names, args []string
		want        string // "" for no fault
	}{
		"sender needs no source":      {args: []string{"--role", "sender", "--outbox", testURL}},
		"sender finds the outbox":     {args: []string{"--role", "sender", "--source", testURL}},
		"sender needs an outbox":      {args: []string{"--role", "sender"}, want: "outbox is missing"},
		"publisher needs a source":    {args: []string{"--outbox", testURL}, want: "source is missing"},
		"no database, nothing needed": {names: []string{"log-level"}},
		"another command's setting":   {names: []string{"outbox"}, args: []string{"--outbox", testURL}},
		"either database will do":     {names: []string{"source", "outbox"}, args: []string{"--source", testURL}},
		"neither will not":            {names: []string{"source", "outbox"}, want: "outbox is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			// A setting that the command does not register is not read either.
			var environ []string
			if test.names != nil {
				environ = []string{"WALHOOK_RETENTION=nonsense"}
			}
			got, err := load(t, test.args, environ, test.names...)
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %q", err, test.want)
			case err == nil && got.Retention != 168*time.Hour:
				t.Errorf("retention %s", got.Retention)
			}
		})
	}
}

func TestSettings_LeaveOtherFlagsAlone(t *testing.T) {
	cmd := &cobra.Command{Use: "test"}
	addSettings(cmd, "source", "slot")
	own := cmd.Flags().Bool("outbox", false, "named like a setting, and none")
	if err := cmd.ParseFlags([]string{"--source", testURL, "--outbox"}); err != nil {
		t.Fatal(err)
	}
	got, err := readSettings(cmd.Flags(), func() []string { return nil })
	if err != nil || !*own || got.Outbox != testURL {
		t.Errorf("own %v, outbox %s, %v", *own, got.Outbox, err)
	}
}

func TestSettings_WarnOfUnknownVariables(t *testing.T) {
	got, err := load(t, []string{"--source", testURL}, []string{"WALHOOK_SLOTT=x", "WALHOOK_ADMIN_TOKENS=hunter2", "WALHOOKED=1"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"WALHOOK_ADMIN_TOKENS is not a setting of this version and is ignored",
		"WALHOOK_SLOTT is not a setting of this version and is ignored",
	}
	if !reflect.DeepEqual(got.warnings, want) {
		t.Errorf("got %q", got.warnings)
	}
}

func TestSettings_AFileThatIsNotThere(t *testing.T) {
	for _, args := range [][]string{
		{"--config", "/nowhere/walhook.yaml"},
		{"--source", testURL, "--catalog", "/nowhere/catalog.yaml"},
	} {
		_, err := load(t, args, nil)
		if err == nil || !strings.Contains(err.Error(), args[len(args)-1]) || exitStatus(t.Context(), err) != exitUsage {
			t.Errorf("%v: %v", args, err)
		}
	}
}
