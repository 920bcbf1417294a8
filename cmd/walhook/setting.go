package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"

	"walhook/api"
	"walhook/cdc/source"
	"walhook/outbox"
	"walhook/schemas/catalog"
	"walhook/sender/deliver"
)

// setting is one setting, with the flag --name, the environment variable envName(name)
// and the key name in the file.
type setting struct {
	name     string
	standard string // the default, as a flag would have it
	usage    string
	// parse puts text into the settings. Its error says what is wanted and never quotes
	// a secret. It is nil for a setting that names a file with the value of another one
	// (inFile).
	parse func(s *settings, text string) error
}

// inFile returns the setting that names a file with the value of a secret one. A list
// of processes shows flags, but not files.
func inFile(of string) setting {
	return setting{name: of + "-file", usage: "`file` that contains only the value of --" + of}
}

// secretOf returns the secret setting whose value is in the file that this setting
// names; "" for other settings.
func (s *setting) secretOf() string {
	if s.parse != nil {
		return ""
	}
	return strings.TrimSuffix(s.name, "-file")
}

// settingTable holds every setting, in the order in which errors list them. It is never
// changed.
var settingTable = []setting{
	{"source", "", "the carrier `database`, a PostgreSQL URL; several hosts are allowed", func(s *settings, text string) error {
		s.Source = lowerScheme(text)
		return checkURL(s, "source", s.Source)
	}},
	inFile("source"),
	{"outbox", "", "the `database` of the outbox, a PostgreSQL URL (default the source)", func(s *settings, text string) error {
		s.Outbox = lowerScheme(text)
		return checkURL(s, "outbox", s.Outbox)
	}},
	inFile("outbox"),
	{"slot", "walhook", "`name` of the replication slot", func(s *settings, text string) error {
		s.Slot = text
		return source.Config{URL: "-", Catalog: &catalog.Catalog{}, Slot: text}.Validate()
	}},
	{"publication", "walhook", "`name` of the publication", func(s *settings, text string) error {
		s.Publication = text
		return source.Config{URL: "-", Catalog: &catalog.Catalog{}, Publication: text}.Validate()
	}},
	{"catalog", "", "catalog `file` with the published tables, or a built-in catalog: carrier or platform (default carrier)", parseCatalog},
	{"role", "all", "the `parts` that this process runs: all, publisher, sender, api, comma separated", parseRoles},
	{"listen", "127.0.0.1:8480", "`address` of the subscription API, health checks and metrics, or off", parseListen},
	{"metrics-listen", "", "`address` of /metrics alone, which --listen then does not serve (default --listen)", func(s *settings, text string) error {
		if s.MetricsListen = text; text == "" {
			return nil
		}
		return checkListenAddress(text)
	}},
	{"trusted-proxies", "", "`networks` of proxies whose Forwarded and X-Forwarded-For headers count, comma separated, such as 10.0.0.7/32 (default none)", func(s *settings, text string) (err error) {
		s.TrustedProxies, err = networks(text)
		return err
	}},
	{"tls-cert", "", "PEM `file` with the certificate of --listen and its intermediates, reloaded when it changes (default none: plain HTTP)", func(s *settings, text string) error {
		s.TLSCert = text
		return nil
	}},
	{"tls-key", "", "PEM `file` with the key of --tls-cert", func(s *settings, text string) error {
		s.TLSKey = text
		return nil
	}},
	{"allow-cidr", "", "`networks` that endpoints may be in besides public ones, comma separated, such as 127.0.0.0/8", parseAllowCIDR},
	{"deny-cidr", "", "`networks` that nothing is sent to, even public or allowed ones, comma separated: your own public ranges", parseDenyCIDR},
	{"allow-ports", deliver.DefaultPorts, "`ports` that endpoints may have, comma separated", func(s *settings, text string) (err error) {
		s.AllowPorts, err = deliver.ParsePorts(text)
		return err
	}},
	{"egress-address", "", "local `address` that deliveries leave from (default any)", func(s *settings, text string) (err error) {
		if text == "" {
			return nil
		}
		if s.EgressAddress, err = netip.ParseAddr(text); err != nil {
			return fmt.Errorf("%q: want an IP address of this machine", text)
		}
		return nil
	}},
	{"http-client", string(deliver.ClientWalhook), "HTTP `client` of deliveries: walhook, or net/http, which costs more CPU and helps to diagnose a receiver", func(s *settings, text string) error {
		s.HTTPClient = deliver.Client(text)
		return deliver.Config{Client: s.HTTPClient}.Validate()
	}},
	{"client-cert", "", "PEM `file` with the certificate that walhook presents to receivers that ask for one, reloaded when it changes (default none)", func(s *settings, text string) error {
		s.ClientCert = text
		return nil
	}},
	{"client-key", "", "PEM `file` with the key of --client-cert", func(s *settings, text string) error {
		s.ClientKey = text
		return nil
	}},
	{"client-certs", "", "`list` of certificates for single hosts in place of --client-cert: host=certificate:key, comma separated; *.example.com is every name below it", parseClientCerts},
	{"nats-credentials", "", "`file` with which senders sign in at NATS servers of feeds: made by nsc, a seed of an nkey, a line user:password, or a token; or host=file, comma separated, for single servers (default none)", parseNATSCredentials},
	{"ca-file", "", "PEM `file` with authorities of receivers' certificates besides the system's, reloaded when it changes (default none)", func(s *settings, text string) error {
		s.CAFile = text
		return nil
	}},
	{"retention", "168h", "`duration` for which events, attempts and dead letters are kept", func(s *settings, text string) (err error) {
		if s.Retention, err = parseDuration(text); err != nil {
			return err
		}
		return outbox.Config{URL: "-", Retention: s.Retention}.Validate()
	}},
	{"attempt-timeout", "20s", "time `limit` of a whole attempt", func(s *settings, text string) (err error) {
		s.AttemptTimeout, err = parseDuration(text)
		return err
	}},
	{"retry-schedule", "5s,30s,2m,10m,30m,1h,2h,4h,8h,16h", "`delays` after the first failed attempt, the second and so on, comma separated", parseSchedule},
	{"max-event-bytes", "16777216", "`size` of the largest body", func(s *settings, text string) (err error) {
		if s.MaxEventBytes, err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("%q: want a whole number of bytes", text)
		}
		return outbox.Config{URL: "-", MaxEventBytes: s.MaxEventBytes}.Validate()
	}},
	{"admin-token", "", "the operator's `token` for the subscription API (default none: the API refuses everything but health and metrics)", func(s *settings, text string) error {
		s.AdminToken = text
		if text != "" && len(text) < api.ShortAdminToken {
			s.warnings = append(s.warnings, "--admin-token is short enough to guess: 'head -c 32 /dev/urandom | base64' makes a better one")
		}
		return nil
	}},
	inFile("admin-token"),
	{"secret-key", "", "32 bytes in `base64`, the key that encrypts endpoint secrets at rest (default none: stored in clear)", func(s *settings, text string) error {
		if text == "" {
			return nil
		}
		key, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(key) != 32 {
			return errors.New("want 32 bytes in base64, as 'head -c 32 /dev/urandom | base64' makes them")
		}
		s.SecretKey = key
		return nil
	}},
	inFile("secret-key"),
	{"old-secret-key", "", "32 bytes in `base64`, the previous key that encrypted the secrets (default none)", func(s *settings, text string) error {
		if text == "" {
			return nil
		}
		key, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(key) != 32 {
			return errors.New("want 32 bytes in base64")
		}
		s.OldSecretKey = key
		return nil
	}},
	inFile("old-secret-key"),
	{"portal", "on", "whether the process that serves the subscription API also serves the `portal`, on or off", func(s *settings, text string) error {
		s.Portal = text == "on"
		if text != "on" && text != "off" {
			return fmt.Errorf("%q: want on or off", text)
		}
		return nil
	}},
	{"portal-url", "", "the portal's public `URL`, such as https://webhooks.example.com/portal/ (default derived from --listen and --tls-cert)", parsePortalURL},
	{"portal-name", "", "`name` that the portal bears, of at most 60 characters (default Webhooks)", parsePortalName},
	{"portal-logo", "", "`file` with the portal's logo, PNG, JPEG, WebP or SVG of at most 128 KB; a second one, after a comma, is for dark backgrounds", parsePortalLogo},
	{"portal-accent", "", "`colour` of the portal's buttons and links, such as #3451c6, in quotes; a second one, after a comma, is for dark backgrounds", parsePortalAccent},
	{"portal-support", "", "`link` to your support on the pages of the portal, https://… or mailto:… (default none)", parsePortalSupport},
	{"portal-frame-ancestors", "", "`origins` whose pages may show the portal in a frame, such as https://my.example.com, comma separated (default none)", parsePortalFrameAncestors},
	{"messages", "walhook,walhook.event", "`prefixes` of the logical messages that walhook takes, comma separated, or off: a prefix that ends in .event carries events, any other carries results", parseMessages},
	{"trace-endpoint", "", "`URL` of an OpenTelemetry collector for traces over HTTP (OTLP), such as http://127.0.0.1:4318/v1/traces (default none)", parseTraceEndpoint},
	{"trace-sample", "0.01", "`fraction` of events that are traced, 0 to 1", func(s *settings, text string) (err error) {
		if s.Trace.sample, err = strconv.ParseFloat(text, 64); err != nil || !(s.Trace.sample >= 0 && s.Trace.sample <= 1) {
			return fmt.Errorf("%q: want a number from 0 to 1", text)
		}
		return nil
	}},
	{"log-level", "info", "lowest `level` of log lines: debug, info, warn, error", func(s *settings, text string) (err error) {
		if s.LogLevel, err = zapcore.ParseLevel(text); err != nil || s.LogLevel > zapcore.ErrorLevel {
			return fmt.Errorf("%q: want debug, info, warn or error", text)
		}
		return nil
	}},
	{"log-format", "json", "`format` of log lines: json, or console for people", func(s *settings, text string) error {
		s.LogFormat = text
		if text != "json" && text != "console" {
			return fmt.Errorf("%q: want json or console", text)
		}
		return nil
	}},
}

const envPrefix = "WALHOOK_"

func envName(setting string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

// isSetting reports whether name can be set, config included.
func isSetting(name string) bool {
	return name == "config" || slices.Contains(settingNames(), name)
}

func settingNames() []string {
	names := make([]string, len(settingTable))
	for i, one := range settingTable {
		names[i] = one.name
	}
	return names
}

// addSettings gives cmd the flags of the named settings, those of their files,
// and --config.
func addSettings(cmd *cobra.Command, names ...string) {
	addSettingFlags(cmd, names...)
	flags := cmd.Flags()
	flags.String("config", "", "YAML `file` with settings, named like the flags ["+envName("config")+"]")
	_ = flags.SetAnnotation("config", settingAnnotation, []string{"config"}) // fails only for unknown flags
}

// addSettingFlags is addSettings without --config.
func addSettingFlags(cmd *cobra.Command, names ...string) {
	flags := cmd.Flags()
	for _, name := range names {
		if !slices.ContainsFunc(settingTable, func(one setting) bool { return one.name == name }) {
			panic("no such setting: " + name) // every start of the binary would find it
		}
	}
	for i := range settingTable {
		one := &settingTable[i]
		name := one.name
		if !slices.Contains(names, name) && !slices.Contains(names, one.secretOf()) {
			continue
		}
		flags.String(name, one.standard, one.usage+" ["+envName(name)+"]")
		_ = flags.SetAnnotation(name, settingAnnotation, []string{name}) // fails only for unknown flags
	}
}

// settingAnnotation marks the flags that are settings among a command's flags.
const settingAnnotation = "setting"

// optional marks a setting that cmd, unlike other commands, does not require.
func optional(cmd *cobra.Command, name string) {
	_ = cmd.Flags().SetAnnotation(name, optionalAnnotation, []string{name}) // fails only for unknown flags
}

const optionalAnnotation = "optional"

func isOptional(flags *pflag.FlagSet, name string) bool {
	flag := flags.Lookup(name)
	return flag != nil && flag.Annotations[optionalAnnotation] != nil
}

// isRegistered reports whether addSettings made the named flag.
func isRegistered(flags *pflag.FlagSet, name string) bool {
	flag := flags.Lookup(name)
	return flag != nil && flag.Annotations[settingAnnotation] != nil
}
