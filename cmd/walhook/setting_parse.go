package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"walhook/schemas"
	"walhook/schemas/catalog"
	"walhook/sender/deliver"
)

func parseTraceEndpoint(s *settings, text string) error {
	if s.Trace.endpoint = text; text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
		return errors.New("want http:// or https:// with a host and a path, such as http://127.0.0.1:4318/v1/traces; put secrets into OTEL_EXPORTER_OTLP_HEADERS")
	}
	return nil
}

func parseCatalog(s *settings, text string) (err error) {
	if s.Catalog = catalog.BuiltIn(cmp.Or(text, "carrier")); s.Catalog != nil {
		return nil
	}
	content, err := readCatalog(text)
	if err != nil {
		return err
	}
	if s.Catalog, err = catalog.Parse(content); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return nil
}

// readCatalog reads a catalog file or a pipe, up to what is too large for one. It does
// not wait for somebody to open the other end of a pipe.
func readCatalog(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); !mode.IsRegular() && mode&os.ModeNamedPipe == 0 {
		return nil, fmt.Errorf("read %s: it is not a file", name)
	}
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, catalog.MaxBytes+1))
}

func parseRoles(s *settings, text string) error {
	names, err := list(text)
	for _, name := range names {
		switch name {
		case "all":
			s.Roles = roles{Publisher: true, Sender: true, API: true}
		case "publisher":
			s.Roles.Publisher = true
		case "sender":
			s.Roles.Sender = true
		case "api":
			s.Roles.API = true
		default:
			return fmt.Errorf("%q: want all, publisher, sender or api, comma separated", name)
		}
	}
	return err
}

func parseListen(s *settings, text string) error {
	if text == "off" {
		return nil
	}
	s.Listen = text
	return checkListenAddress(text)
}

func checkListenAddress(text string) error {
	_, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q: want host:port, such as 127.0.0.1:8480, or off", text)
	}
	return nil
}

func parseAllowCIDR(s *settings, text string) (err error) {
	s.AllowCIDR, err = networks(text)
	return err
}

func parseDenyCIDR(s *settings, text string) (err error) {
	s.DenyCIDR, err = networks(text)
	return err
}

// networks reads a list of CIDRs. It refuses an address without a prefix length, which
// may mean the address or its network.
func networks(text string) (all []netip.Prefix, err error) {
	items, err := list(text)
	if err != nil {
		return nil, err
	}
	for _, network := range items {
		prefix, err := netip.ParsePrefix(network)
		if err != nil {
			return nil, fmt.Errorf("%q: want networks such as 10.0.0.0/8 or 192.0.2.7/32, comma separated", network)
		}
		all = append(all, prefix.Masked())
	}
	return all, deliver.Config{AllowCIDR: all}.Validate()
}

func parseMessages(s *settings, text string) error {
	s.Messages = schemas.Messages{}
	if text == "off" {
		return nil
	}
	prefixes, err := list(text)
	if err != nil {
		return err
	}
	if len(prefixes) == 0 || slices.Contains(prefixes, "off") {
		return fmt.Errorf("%q: want prefixes such as walhook,walhook.event, or off alone", text)
	}
	s.Messages = prefixes
	return s.Messages.Validate()
}

func parseSchedule(s *settings, text string) error {
	delays, err := list(text)
	if err != nil {
		return err
	}
	for _, delay := range delays {
		d, err := parseDuration(delay)
		if err != nil {
			return err
		}
		s.RetrySchedule = append(s.RetrySchedule, d)
	}
	return nil
}

// parseDuration refuses zero, too, because the packages replace it by their default.
func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q: want a positive duration with its unit, such as 20s, 5m or 168h", text)
	}
	return d, nil
}

// list splits at commas. It refuses empty items, which stand for a value that is missing.
// An empty text is an empty list.
func list(text string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	parts := strings.Split(text, ",")
	for i, part := range parts {
		if parts[i] = strings.TrimSpace(part); parts[i] == "" {
			return nil, fmt.Errorf("%q: item %d of the list is empty: give it a value, or leave out its comma", text, i+1)
		}
	}
	return parts, nil
}

// parseNATSCredentials reads a file, and host=file, comma separated.
func parseNATSCredentials(s *settings, text string) error {
	for one := range strings.SplitSeq(text, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		host, file, named := strings.Cut(one, "=")
		if !named {
			host, file = "", one
		}
		c := deliver.NATSCredentials{Host: strings.TrimSpace(host), File: strings.TrimSpace(file)}
		if c.File == "" || named && c.Host == "" {
			return fmt.Errorf("%q: want a file, or host=file, such as nats-1.internal=/etc/walhook/nats.creds", one)
		}
		s.NATSCredentials = append(s.NATSCredentials, c)
	}
	return nil
}

// parseClientCerts reads host=certificate:key, comma separated.
func parseClientCerts(s *settings, text string) error {
	for one := range strings.SplitSeq(text, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		host, files, _ := strings.Cut(one, "=")
		cert, key, _ := strings.Cut(files, ":")
		c := deliver.ClientCertificate{Host: strings.TrimSpace(host), Cert: strings.TrimSpace(cert), Key: strings.TrimSpace(key)}
		const want = "%q: want host=certificate:key, such as *.example.com=/etc/walhook/client.crt:/etc/walhook/client.key"
		if c.Host == "" || c.Cert == "" || c.Key == "" {
			return fmt.Errorf(want, one)
		}
		var err error
		if c.Host, err = deliver.HostPattern(c.Host); err != nil {
			return fmt.Errorf(want+"; %w", one, err)
		}
		s.ClientCerts = append(s.ClientCerts, c)
	}
	return nil
}
