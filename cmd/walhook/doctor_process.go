package main

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
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
	fix := doctor.Steps{{Kind: doctor.Setting, Text: "--tls-cert=" + s.TLSCert,
		Note: "put a valid certificate and its key into these files: a running walhook reloads them within seconds"}}
	leaf, err := httpd.PairOf(s.TLSCert, s.TLSKey)
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
	const note = "put valid ones into the files: a running walhook reloads them within seconds"
	if s.CAFile != "" {
		if err := deliver.CheckAuthorities(s.CAFile); err != nil {
			r.Fail(configClientCertificate, doctor.Steps{{Kind: doctor.Setting, Text: "--ca-file=" + s.CAFile, Note: note}}, "--ca-file: %v", err)
		} else {
			r.OK(configClientCertificate, "--ca-file is read")
		}
	}
	for _, c := range certificates {
		host, setting := cmp.Or(c.Host, "all other hosts"), "--client-cert="+c.Cert
		if c.Host != "" {
			setting = "--client-certs=" + c.Host + "=" + c.Cert + ":" + c.Key
		}
		fix := doctor.Steps{{Kind: doctor.Setting, Text: setting, Note: note}}
		leaf, err := c.CertificateOf()
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
