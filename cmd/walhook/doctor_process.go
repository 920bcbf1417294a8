package main

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"walhook/doctor"
	"walhook/internal/httpd"
	"walhook/sender/deliver"
)

// The checks of this process and its files.
const (
	configDescriptors = "config.descriptors"
	configCertificate = "config.certificate"

	configClientCertificate = "config.client_certificate"
)

// The most files and sockets that the parts of a process use, and the fewest with which
// they work.
const (
	neededDescriptors = 8192 // 4,096 attempts, 2,048 connections of the API, those to the databases, and a reserve
	leastDescriptors  = 256
)

// examineProcess checks this machine's limits and files for a process of walhook.
func examineProcess(s settings, now time.Time) []doctor.Finding {
	r := doctor.NewReport(configDescriptors, configCertificate, configClientCertificate)
	examineDescriptors(httpd.Descriptors(), r)
	examineCertificate(s, now, r)
	examineClientCertificates(s, now, r)
	return r.Findings()
}

func examineDescriptors(have uint64, r *doctor.Report) {
	fix := doctor.Steps{{Kind: doctor.Shell, Text: fmt.Sprintf("ulimit -n %d", neededDescriptors),
		Note: fmt.Sprintf("in the shell that starts walhook; under systemd LimitNOFILE=%d in its unit. This is the limit of doctor's own process", neededDescriptors)}}
	bounds := httpd.BoundsFor(have)
	switch {
	case have == 0:
		r.OK(configDescriptors, "this system reports no limit")
	case have < leastDescriptors:
		r.Fail(configDescriptors, fix, "the limit of open files and sockets (ulimit -n) is %d, want %d: too few for deliveries and databases", have, neededDescriptors)
	case have < neededDescriptors:
		r.Warn(configDescriptors, fix, "the limit of open files and sockets (ulimit -n) is %d, want %d; the API takes %s", have, neededDescriptors, bounds)
	default:
		r.OK(configDescriptors, "the limit of open files and sockets is %d, want %d; the API takes %s", have, neededDescriptors, bounds)
	}
}

// expiresSoon is how long before its expiry doctor warns about a certificate.
const expiresSoon = 14 * 24 * time.Hour

func examineCertificate(s settings, now time.Time, r *doctor.Report) {
	if s.TLSCert == "" {
		r.OK(configCertificate, "none: --listen speaks plain HTTP, and a proxy terminates TLS")
		return
	}
	leaf, err := httpd.PairOf(s.TLSCert, s.TLSKey)
	fix := pairSteps(s.TLSCert, s.TLSKey, err)
	switch {
	case err != nil:
		r.Fail(configCertificate, fix, "%v; a running walhook continues with the previous pair", err)
	case now.After(leaf.NotAfter):
		r.Fail(configCertificate, fix, "the certificate of %s expired at %s", names(leaf), leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		r.Fail(configCertificate, fix, "the certificate of %s is not valid before %s", names(leaf), leaf.NotBefore.UTC().Format(time.RFC3339))
	case leaf.NotAfter.Sub(now) < expiresSoon:
		r.Warn(configCertificate, fix, "the certificate of %s expires at %s", names(leaf), leaf.NotAfter.UTC().Format(time.RFC3339))
	default:
		r.OK(configCertificate, "of %s, until %s", names(leaf), leaf.NotAfter.UTC().Format(time.RFC3339))
	}
}

// examineClientCertificates looks at what walhook presents to receivers, and at the
// authorities that it trusts besides the system's.
func examineClientCertificates(s settings, now time.Time, r *doctor.Report) {
	certificates := s.clientCertificates()
	if len(certificates) == 0 && s.CAFile == "" {
		r.OK(configClientCertificate, "none: receivers get no certificate, and theirs are checked by the system's authorities")
		return
	}
	if s.CAFile != "" {
		examineAuthorities(s.CAFile, now, r)
	}
	for _, c := range certificates {
		host := cmp.Or(c.Host, "all other hosts")
		leaf, err := c.CertificateOf()
		fix := pairSteps(c.Cert, c.Key, err)
		switch {
		case err != nil:
			r.Fail(configClientCertificate, fix, "for %s: %v; a running walhook continues with the previous pair", host, err)
		case now.After(leaf.NotAfter):
			r.Fail(configClientCertificate, fix, "the certificate for %s expired at %s", host, leaf.NotAfter.UTC().Format(time.RFC3339))
		case now.Before(leaf.NotBefore):
			r.Fail(configClientCertificate, fix, "the certificate for %s is not valid before %s", host, leaf.NotBefore.UTC().Format(time.RFC3339))
		case leaf.NotAfter.Sub(now) < expiresSoon:
			r.Warn(configClientCertificate, fix, "the certificate for %s expires at %s", host, leaf.NotAfter.UTC().Format(time.RFC3339))
		default:
			r.OK(configClientCertificate, "for %s, until %s", host, leaf.NotAfter.UTC().Format(time.RFC3339))
		}
	}
}

// examineAuthorities looks at a file of authorities. What an expired one has signed is not
// accepted (RFC 5280, section 6.1.3).
func examineAuthorities(file string, now time.Time, r *doctor.Report) {
	all, err := deliver.AuthoritiesOf(file)
	if err != nil {
		r.Fail(configClientCertificate, authoritySteps(file, err), "--ca-file: %v", err)
		return
	}
	slices.SortStableFunc(all, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	expired := 0
	for expired < len(all) && now.After(all[expired].NotAfter) {
		expired++
	}
	fix := doctor.Steps{{Kind: doctor.Shell, Text: "openssl storeutl -noout -text -certs " + shellWord(file) + " | grep -E 'Subject:|Not After'",
		Note: fmt.Sprintf("shows until when each is valid; have the authority issue a new one, and put it into %s: %s", file, rereads)}}
	first := fmt.Sprintf("%q, until %s", all[0].Subject, all[0].NotAfter.UTC().Format(time.RFC3339))
	switch {
	case expired == len(all):
		r.Fail(configClientCertificate, fix, "--ca-file: every authority in it has expired, the first of them %s", first)
	case expired > 0:
		r.Warn(configClientCertificate, fix, "--ca-file: %d of %d authorities have expired, the first of them %s", expired, len(all), first)
	case all[0].NotAfter.Sub(now) < expiresSoon:
		r.Warn(configClientCertificate, fix, "--ca-file: an authority expires soon: %s", first)
	default:
		r.OK(configClientCertificate, "--ca-file has %d authorities, of which the first expires at %s", len(all), all[0].NotAfter.UTC().Format(time.RFC3339))
	}
}

// rereads is how changed files come into force. A process that starts needs good ones.
const rereads = "a running walhook reads changed files within seconds, without a restart"

// pairSteps say what to look at and which files to replace, where a certificate and its key
// cannot be used because of err, or the certificate is not valid at the time for nil.
func pairSteps(cert, key string, err error) doctor.Steps {
	c, k := shellWord(cert), shellWord(key)
	if unread(err) {
		return doctor.Steps{unreadStep(cert, key)}
	}
	if err != nil {
		return doctor.Steps{{Kind: doctor.Shell, Text: fmt.Sprintf("openssl x509 -in %s -noout -pubkey; openssl pkey -in %s -pubout", c, k),
			Note: fmt.Sprintf("both print the same key where the files belong together; put a certificate into %s, its own first and then those of its authorities, and its key without a passphrase into %s: %s", cert, key, rereads)}}
	}
	return doctor.Steps{{Kind: doctor.Shell, Text: fmt.Sprintf("openssl x509 -in %s -noout -subject -issuer -dates", c),
		Note: fmt.Sprintf("shows from when until when it is valid; have its authority issue a new one, and replace %s, and %s if it has a new key: %s", cert, key, rereads)}}
}

// authoritySteps are for a file of authorities that cannot be used because of err.
func authoritySteps(file string, err error) doctor.Steps {
	if unread(err) {
		return doctor.Steps{unreadStep(file)}
	}
	return doctor.Steps{{Kind: doctor.Shell, Text: "grep -c -e '-----BEGIN CERTIFICATE-----' " + shellWord(file),
		Note: fmt.Sprintf("counts its certificates in PEM; put those of the authorities into %s ('openssl x509 -inform DER' converts one that is not in PEM): %s", file, rereads)}}
}

func unread(err error) bool {
	_, is := errors.AsType[*fs.PathError](err)
	return is
}

func unreadStep(files ...string) doctor.Step {
	words := []string{"ls -l --"}
	for _, file := range files {
		words = append(words, shellWord(file))
	}
	return doctor.Step{Kind: doctor.Shell, Text: strings.Join(words, " "),
		Note: "the user of walhook's processes reads " + strings.Join(files, " and ") + ": put what is missing there, or let that user read it; " + rereads}
}

// names returns the hosts of a certificate.
func names(leaf *x509.Certificate) string {
	all := slices.Clone(leaf.DNSNames)
	for _, a := range leaf.IPAddresses {
		all = append(all, a.String())
	}
	if len(all) == 0 {
		return "no name"
	}
	return doctor.List(all, doctor.ListMost)
}
