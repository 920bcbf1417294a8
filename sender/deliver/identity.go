package deliver

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"walhook/outbox/address"
)

// ClientCertificate names the files of a certificate that walhook presents to receivers
// that ask for one.
type ClientCertificate struct {
	// Host is a receiver's name or address, or *.example.com for every name below
	// example.com, in any spelling. "" is each receiver that no other certificate names.
	Host      string
	Cert, Key string // PEM
}

// HostPattern is the normal form of a Host of a certificate: a name in ASCII and lower
// case, as it is dialled. Its error says what to write instead.
func HostPattern(text string) (string, error) {
	name, wild := strings.CutPrefix(text, "*.")
	_, literal := address.LiteralAddress(name)
	normal := address.NormalHost(name)
	switch {
	case text == "":
		return "", nil
	case wild && literal:
		return "", fmt.Errorf("%q: nothing is below an address: write %s", text, normal)
	case literal:
		return normal, nil
	case strings.ContainsAny(name+normal, "*:/?#@%[]\\ ") || address.URLFault("https://"+normal+"/") != "":
		err := fmt.Errorf("%q is no host: want a name or an address without scheme, port and path, such as hooks.example.com, or *.example.com for every name below it", text)
		if host := address.NamedHost(name); host != "" && address.URLFault("https://"+net.JoinHostPort(host, "443")+"/") == "" {
			err = fmt.Errorf("%w; here %s", err, strings.Repeat("*.", strings.Count(text[:len(text)-len(name)], "*"))+host)
		}
		return "", err
	case wild:
		return "*." + normal, nil
	}
	return normal, nil
}

// matches reports whether the certificate is for a host in its normal form, with Host in
// its own.
func (c *ClientCertificate) matches(host string) bool {
	if below, ok := strings.CutPrefix(c.Host, "*"); ok {
		return len(host) > len(below) && strings.EqualFold(host[len(host)-len(below):], below)
	}
	return c.Host == "" || strings.EqualFold(c.Host, host)
}

// Validate returns what is wrong with the names of a host and files.
func (c *ClientCertificate) Validate() error {
	if c.Cert == "" || c.Key == "" {
		return errors.New("want the files of a certificate and of its key")
	}
	_, err := HostPattern(c.Host)
	return err
}

const (
	// identityLook is how often files are looked at, while connections are made.
	identityLook    = 2 * time.Second
	maxIdentityFile = 1 << 20
)

// watchedFiles are files whose content is parsed again once it changes. What is faulty
// then is not used: what was read before stays, and doctor says so. It is safe for many
// goroutines.
type watchedFiles[T any] struct {
	paths []string
	parse func(texts [][]byte) (T, error)

	mu     sync.Mutex
	texts  [][]byte
	looked time.Time
	value  T
}

// read reads the files for the first time.
func (w *watchedFiles[T]) read() (err error) {
	if w.texts, err = readFiles(w.paths); err == nil {
		w.value, err = w.parse(w.texts)
	}
	w.looked = time.Now()
	return err
}

func (w *watchedFiles[T]) current(now time.Time) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.looked) < identityLook {
		return w.value
	}
	w.looked = now
	texts, err := readFiles(w.paths)
	if err != nil || equalTexts(texts, w.texts) {
		return w.value
	}
	if value, err := w.parse(texts); err == nil { // certificate and key are written one after the other
		w.value, w.texts = value, texts
	}
	return w.value
}

func readFiles(paths []string) (texts [][]byte, err error) {
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(io.LimitReader(file, maxIdentityFile+1))
		file.Close()
		if err == nil && len(text) > maxIdentityFile {
			err = fmt.Errorf("%s is larger than 1 MiB", path)
		}
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

func equalTexts(a, b [][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// identities are what walhook presents and trusts in handshakes.
type identities struct {
	certificates []identity
	authorities  *watchedFiles[*x509.CertPool] // nil: those of Config.RootCAs
}

type identity struct {
	of   ClientCertificate
	pair *watchedFiles[*tls.Certificate]
}

func newIdentities(c *Config) (ids identities, err error) {
	for _, of := range c.ClientCertificates {
		if err := of.Validate(); err != nil {
			return ids, fmt.Errorf("client certificate: %w", err)
		}
		of.Host, _ = HostPattern(of.Host)
		one := identity{of, &watchedFiles[*tls.Certificate]{paths: []string{of.Cert, of.Key}, parse: parseIdentity}}
		if err := one.pair.read(); err != nil {
			return ids, fmt.Errorf("client certificate: %w", err)
		}
		ids.certificates = append(ids.certificates, one)
	}
	if c.CAFile != "" {
		ids.authorities = &watchedFiles[*x509.CertPool]{paths: []string{c.CAFile}, parse: parseAuthorities}
		if err := ids.authorities.read(); err != nil {
			return ids, fmt.Errorf("certificate authorities: %w", err)
		}
	}
	return ids, nil
}

func parseIdentity(texts [][]byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(texts[0], texts[1])
	if err != nil {
		return nil, fmt.Errorf("certificate and key: %w", err)
	}
	return &pair, nil
}

// parseAuthorities adds those of a file to the system's.
func parseAuthorities(texts [][]byte) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a machine without any trusts those of the file
	}
	if !pool.AppendCertsFromPEM(texts[0]) {
		return nil, errors.New("the file holds no certificate in PEM")
	}
	return pool, nil
}

// present returns what to present to a host that asks; an empty one where there is none.
func (ids *identities) present(host string, now time.Time) *tls.Certificate {
	host = address.NormalHost(host)
	for i := range ids.certificates {
		if one := &ids.certificates[i]; one.of.matches(host) {
			return one.pair.current(now)
		}
	}
	return &tls.Certificate{}
}

// CertificateOf reads the certificate and the key of a receiver's kind once, for doctor.
func (c *ClientCertificate) CertificateOf() (*x509.Certificate, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	texts, err := readFiles([]string{c.Cert, c.Key})
	if err != nil {
		return nil, err
	}
	pair, err := parseIdentity(texts)
	if err != nil {
		return nil, err
	}
	return pair.Leaf, nil
}

// AuthoritiesOf reads the certificates of a file of authorities once, for doctor. It has
// those that the senders trust, at least one.
func AuthoritiesOf(path string) (all []*x509.Certificate, err error) {
	texts, err := readFiles([]string{path})
	if err == nil {
		_, err = parseAuthorities(texts)
	}
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(texts[0]); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			continue // as x509.CertPool leaves it out
		}
		if one, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, one)
		}
	}
	return all, nil
}
