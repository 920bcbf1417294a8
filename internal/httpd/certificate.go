package httpd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Certificate is a certificate and its key from two files. It reads both again when they
// change: within seconds it notices a file that was replaced, rewritten, or is reached
// by another symbolic link.
type Certificate struct {
	certFile, keyFile string
	log               *zap.Logger
	every             time.Duration // between two looks

	mu    sync.Mutex // guards what follows
	now   *tls.Certificate
	used  pairText // the files' text from which now was made
	fault error    // why the present pair in the files cannot be used; nil if it is in use
}

type pairText struct{ cert, key []byte }

func (p pairText) equal(other pairText) bool {
	return bytes.Equal(p.cert, other.cert) && bytes.Equal(p.key, other.key)
}

const (
	lookEvery   = 2 * time.Second
	maxPairFile = 1 << 20
)

// ReadCertificate reads both files. It accepts a certificate that is not valid now and
// logs a warning, since some clients may trust it nevertheless.
func ReadCertificate(certFile, keyFile string, log *zap.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log, every: lookEvery}
	var err error
	if c.now, c.used, err = c.load(); err != nil {
		return nil, err
	}
	c.tell("certificate loaded")
	return c, nil
}

func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now, nil
}

// Leaf returns the certificate in use, and an error if the files hold another one that
// cannot be used.
func (c *Certificate) Leaf() (*x509.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now.Leaf, c.fault
}

// watch checks the files until ctx ends.
func (c *Certificate) watch(ctx context.Context) {
	look := time.NewTicker(c.every)
	defer look.Stop()
	var suspect string
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			suspect = c.look(suspect)
		}
	}
}

// look uses the pair in the files if it is new and valid. It returns what is wrong with
// it. It logs that once, and only if the previous look found the same, because only one
// of the two files may have been written yet.
func (c *Certificate) look(suspect string) string {
	text, err := c.read()
	c.mu.Lock()
	same := err == nil && text.equal(c.used)
	known := c.fault
	c.mu.Unlock()
	var pair *tls.Certificate
	if err == nil && !same {
		pair, err = parsePair(text)
	}
	switch {
	case err != nil && suspect != err.Error():
		return err.Error()
	case err != nil:
		c.mu.Lock()
		c.fault = err
		c.mu.Unlock()
		if known == nil || known.Error() != err.Error() {
			c.log.Error("the new certificate cannot be used, keeping the previous one", zap.Error(err))
		}
		return err.Error()
	}
	c.mu.Lock()
	if c.fault = nil; !same {
		c.now, c.used = pair, text
	}
	c.mu.Unlock()
	if !same {
		c.tell("certificate changed")
	}
	return ""
}

func (c *Certificate) tell(what string) {
	leaf, _ := c.Leaf()
	fields := []zap.Field{zap.Strings("names", leaf.DNSNames), zap.Time("not_before", leaf.NotBefore.UTC()), zap.Time("not_after", leaf.NotAfter.UTC())}
	if now := time.Now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		c.log.Warn(what+", which is not valid now", fields...)
		return
	}
	c.log.Info(what, fields...)
}

func (c *Certificate) read() (text pairText, err error) {
	if text.cert, err = readBounded(c.certFile); err != nil {
		return pairText{}, fmt.Errorf("read the certificate: %w", err)
	}
	if text.key, err = readBounded(c.keyFile); err != nil {
		return pairText{}, fmt.Errorf("read the certificate's key: %w", err)
	}
	return text, nil
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxPairFile+1))
	if err == nil && len(text) > maxPairFile {
		err = errors.New("it is larger than 1 MiB")
	}
	return text, err
}

// load reads the files and builds the pair.
func (c *Certificate) load() (*tls.Certificate, pairText, error) {
	text, err := c.read()
	if err != nil {
		return nil, pairText{}, err
	}
	pair, err := parsePair(text)
	return pair, text, err
}

// parsePair parses a pair; its error never quotes the files.
func parsePair(text pairText) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(text.cert, text.key)
	if err != nil {
		return nil, fmt.Errorf("certificate and key: %w", err)
	}
	return &pair, nil
}

// PairOf reads a certificate and its key once, for doctor.
func PairOf(certFile, keyFile string) (*x509.Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	pair, _, err := c.load()
	if err != nil {
		return nil, err
	}
	return pair.Leaf, nil
}
