package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"

	"walhook/cdc/source"
	"walhook/outbox"
	"walhook/portal"
	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/sender"
	"walhook/sender/deliver"
)

// settings are the values of flags, environment and file, in that order of precedence.
// A setting that the command does not register has its default. walhook never prints
// Source, Outbox, AdminToken and SecretKey.
type settings struct {
	Source         string                 // "" only if no part of the process reads the source
	Outbox         string                 // the source, unless it is set
	SourceNow      func() (string, error) // reads the file of Source again; nil if it is not in a file
	OutboxNow      func() (string, error)
	Slot           string
	Publication    string
	Catalog        *catalog.Catalog
	Roles          roles
	Listen         string // "" stands for off
	MetricsListen  string // "" stands for Listen
	TrustedProxies []netip.Prefix
	TLSCert        string // files; "" stands for plain HTTP
	TLSKey         string
	AllowCIDR      []netip.Prefix
	DenyCIDR       []netip.Prefix
	AllowPorts     []deliver.PortRange
	EgressAddress  netip.Addr // the zero Addr stands for any
	HTTPClient     deliver.Client
	ClientCert     string // files; "" stands for none
	ClientKey      string
	ClientCerts    []deliver.ClientCertificate // of single hosts
	CAFile         string

	NATSCredentials []deliver.NATSCredentials // of feeds
	Retention       time.Duration
	AttemptTimeout  time.Duration
	RetrySchedule   []time.Duration
	MaxEventBytes   int
	AdminToken      string // "" for none
	Portal          bool
	PortalURL       *url.URL // nil if there is no portal
	PortalBrand     portal.Brand
	// PortalFrameAncestors are origins; none forbid frames.
	PortalFrameAncestors []string
	SecretKey            []byte // nil for none
	OldSecretKey         []byte // nil for none
	Messages             schemas.Messages
	LogLevel             zapcore.Level
	LogFormat            string // json or console
	Trace                traceConfig

	warnings []string // newLogger logs them
}

// roles are the parts that a process runs.
type roles struct{ Publisher, Sender, API bool }

func (s settings) cdcConfig() source.Config {
	return source.Config{URL: s.Source, URLNow: s.SourceNow, Slot: s.Slot, Publication: s.Publication, Catalog: s.Catalog, Messages: s.Messages,
		// Room for an old and a new row whose values are twice as long as in an event.
		MaxMessageBytes: max(4*s.MaxEventBytes, 1<<20)}
}

func (s settings) outboxConfig() outbox.Config {
	return outbox.Config{URL: s.Outbox, URLNow: s.OutboxNow, Retention: s.Retention, MaxEventBytes: s.MaxEventBytes, SecretKey: s.SecretKey}
}

func (s settings) senderConfig() sender.Config {
	host, _ := os.Hostname() // for people only
	return sender.Config{
		Name:          cmp.Or(host, "walhook") + "/" + strconv.Itoa(os.Getpid()),
		HTTP:          s.deliverConfig(),
		RetrySchedule: s.RetrySchedule,
	}
}

func (s settings) deliverConfig() deliver.Config {
	return deliver.Config{
		Version:        readBuild().version,
		AttemptTimeout: s.AttemptTimeout,
		AllowCIDR:      s.AllowCIDR,
		DenyCIDR:       s.DenyCIDR,
		AllowPorts:     s.AllowPorts,
		EgressAddress:  s.EgressAddress,
		Client:         s.HTTPClient,

		ClientCertificates: s.clientCertificates(),
		CAFile:             s.CAFile,
		NATSCredentials:    s.NATSCredentials,
	}
}

// clientCertificates are those of single hosts, and then the one of all others.
func (s settings) clientCertificates() []deliver.ClientCertificate {
	list := slices.Clone(s.ClientCerts)
	if s.ClientCert != "" {
		list = append(list, deliver.ClientCertificate{Cert: s.ClientCert, Key: s.ClientKey})
	}
	return list
}

// loadSettings reads the settings that cmd has registered with addSettings.
// Its error lists every fault and is a usage error.
func loadSettings(cmd *cobra.Command) (settings, error) {
	return readSettings(cmd.Flags(), os.Environ)
}

func readSettings(flags *pflag.FlagSet, environ func() []string) (settings, error) {
	var s settings
	in := newInput()
	if err := in.load(flags, environ, &s.warnings); err != nil {
		return settings{}, usage(err)
	}
	in.readFiles(flags, &s.warnings)
	s.SourceNow, s.OutboxNow = in.again("source"), in.again("outbox")
	faults := in.faults
	for i := range settingTable {
		one := &settingTable[i]
		if one.parse == nil {
			continue
		}
		text := one.standard
		if isRegistered(flags, one.name) {
			given, ok := settingText(in.values.Get(one.name))
			if !ok {
				faults = append(faults, fmt.Errorf("%s: want one value or a list of values", in.origin[one.name]))
				continue
			}
			text = cmp.Or(strings.TrimSpace(given), text)
		}
		if err := one.parse(&s, text); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", cmp.Or(in.origin[one.name], one.name), err))
		}
	}
	if err := s.complete(flags, in.origin); err != nil {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		return settings{}, usage(listed(faults))
	}
	return s, nil
}

// settingOf is the text of one setting, from wherever it is set; "" where it is not.
func settingOf(cmd *cobra.Command, name string) (string, error) {
	in := newInput()
	if err := in.load(cmd.Flags(), os.Environ, new([]string)); err != nil {
		return "", err
	}
	text, ok := settingText(in.values.Get(name))
	if !ok {
		return "", fmt.Errorf("%s: want one value", in.origin[name])
	}
	return strings.TrimSpace(text), nil
}

// complete fills in the settings that default to another one and lists those that are
// missing. A command that registers --slot needs the source if its role does.
func (s *settings) complete(flags *pflag.FlagSet, origin map[string]string) error {
	const missing = "%s is missing: set --%s or %s to %s, such as postgres://user@host:5432/database"
	_, sourceGiven := origin["source"]
	_, outboxGiven := origin["outbox"]
	if s.Outbox == "" {
		s.Outbox, s.OutboxNow = s.Source, s.SourceNow
	}
	switch {
	case (s.TLSCert == "") != (s.TLSKey == ""):
		return errors.New("tls-cert and tls-key belong together: set both, or neither for plain HTTP")
	case s.TLSCert != "":
		warnOfOthers(s.TLSKey, "certificate's key", &s.warnings)
	}
	if (s.ClientCert == "") != (s.ClientKey == "") {
		return errors.New("client-cert and client-key belong together: set both, or neither")
	}
	for _, c := range s.clientCertificates() {
		warnOfOthers(c.Key, "client certificate's key", &s.warnings)
	}
	s.completePortal()
	switch {
	case isRegistered(flags, "slot") && !isOptional(flags, "source") && s.Roles.Publisher && !sourceGiven:
		return fmt.Errorf(missing, "source", "source", envName("source"), "the carrier database's URL")
	case isRegistered(flags, "outbox") && !isOptional(flags, "outbox") && !outboxGiven && !sourceGiven:
		return fmt.Errorf(missing, "outbox", "outbox", envName("outbox"), "the URL of the database that holds it")
	}
	return nil
}

// input is the merged text of flags, environment and file, with the origin of each
// value.
type input struct {
	values *koanf.Koanf
	origin map[string]string // of each value that is not empty
	files  map[string]string // by secret setting: the file that holds its value
	faults []error
}

func newInput() input {
	return input{values: koanf.New("."), origin: map[string]string{}, files: map[string]string{}}
}

// load merges file, environment and flags; the later override the earlier. The
// environment or a flag names the file.
func (in *input) load(flags *pflag.FlagSet, environ func() []string, warnings *[]string) error {
	fromEnv := koanf.New(".")
	err := fromEnv.Load(env.Provider("", env.Opt{
		Prefix: envPrefix, EnvironFunc: environ,
		TransformFunc: func(name, value string) (string, any) {
			key := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, envPrefix)), "_", "-")
			switch {
			case name == envPrefix+tokenVariable: // of listen
				return "", nil
			case !isSetting(key):
				*warnings = append(*warnings, name+" is not a setting of this version and is ignored")
				return "", nil
			case value == "":
				return "", nil // an empty value counts as unset
			}
			return key, value
		},
	}), nil)
	if err != nil {
		return fmt.Errorf("read the environment: %w", err)
	}
	slices.Sort(*warnings)
	fromFlags := koanf.New(".")
	if err := fromFlags.Load(posflag.ProviderWithFlag(flags, ".", nil, func(f *pflag.Flag) (string, any) {
		if !isRegistered(flags, f.Name) {
			return "", nil // not a setting
		}
		return f.Name, f.Value.String()
	}), nil); err != nil {
		return fmt.Errorf("read the flags: %w", err)
	}
	path := cmp.Or(fromFlags.String("config"), fromEnv.String("config"))
	if path != "" {
		warnOfOthers(path, "configuration file", warnings)
		fromFile, err := in.readFile(path)
		if err != nil {
			return err
		}
		in.merge(fromFile, func(key string) string { return key + " in " + path })
	}
	in.merge(fromEnv, envName)
	in.merge(fromFlags, func(key string) string { return "--" + key })
	return nil
}

func (in *input) readFile(path string) (*koanf.Koanf, error) {
	values := koanf.New(".")
	if err := values.Load(file.Provider(path), yaml.Parser()); err != nil {
		if fault, ok := errors.AsType[*fs.PathError](err); ok {
			return nil, fmt.Errorf("configuration file %s: %w", path, fault.Err)
		}
		// The parser's error quotes the text, which may contain a password.
		return nil, fmt.Errorf("configuration file %s: want YAML with one \"setting: value\" per line, with the flags' names", path)
	}
	for _, key := range values.Keys() {
		switch hint := strings.ReplaceAll(strings.ToLower(key), "_", "-"); {
		case key == "config":
			in.faults = append(in.faults, fmt.Errorf("config in %s: a configuration file cannot name another one", path))
		case commentedOut(key, values.Get(key)):
			in.faults = append(in.faults, fmt.Errorf("%s in %s is empty: put the colour into quotes, such as '#3451c6', since # begins a comment", key, path))
		case isSetting(key):
		case isSetting(hint):
			in.faults = append(in.faults, fmt.Errorf("%s in %s: no such setting, want %s", key, path, hint))
		default:
			in.faults = append(in.faults, fmt.Errorf("%s in %s: no such setting, want one of %s", key, path, strings.Join(settingNames(), ", ")))
		}
	}
	return values, nil
}

func (in *input) merge(layer *koanf.Koanf, name func(key string) string) {
	for _, key := range layer.Keys() {
		if text, ok := settingText(layer.Get(key)); ok && text == "" {
			delete(in.origin, key)
		} else {
			in.origin[key] = name(key)
		}
	}
	_ = in.values.Merge(layer) // fails only under StrictMerge
}

// settingText returns a value as a flag would have it: lists are comma separated.
func settingText(value any) (string, bool) {
	switch v := value.(type) {
	case nil:
		return "", true
	case string:
		return v, true
	case bool, int, int64, uint64:
		return fmt.Sprint(v), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	case []any:
		texts := make([]string, len(v))
		for i, element := range v {
			text, ok := settingText(element)
			if _, nested := element.([]any); !ok || nested {
				return "", false
			}
			texts[i] = text
		}
		return strings.Join(texts, ","), true
	}
	return "", false
}

// listed joins all faults into one error, with a line for each.
func listed(faults []error) error {
	if len(faults) == 1 {
		return faults[0]
	}
	return fmt.Errorf("%d settings are wrong:\n%w", len(faults), errors.Join(faults...))
}
