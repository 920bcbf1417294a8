package sender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"syscall"
)

// failure is why an attempt got no answer; "" when it got one. It is the
// metric's reason.
type failure string

// The failures that are the endpoint's.
const (
	failDNS            failure = "dns"
	failRefused        failure = "refused"
	failUnreachable    failure = "unreachable"
	failReset          failure = "reset"
	failClosed         failure = "closed" // the connection ended before an answer
	failTimeoutConnect failure = "timeout_connect"
	failTimeoutTLS     failure = "timeout_tls"
	failTimeoutHeader  failure = "timeout_header"
	failTimeoutTotal   failure = "timeout_total"
	failTLSExpired     failure = "tls_expired"
	failTLSAuthority   failure = "tls_authority"
	failTLSHostname    failure = "tls_hostname"
	failTLS            failure = "tls"
	failMalformed      failure = "malformed_response"
	failBlocked        failure = "blocked_address"
	failURL            failure = "unusable_url"
)

// The failures that are ours.
const (
	failShutdown   failure = "shutdown"
	failNoNetwork  failure = "no_network"
	failNoResource failure = "no_resources" // descriptors, memory, local ports
	failDNSHere    failure = "dns_here"     // our resolver cannot be reached
	failSecret     failure = "no_secret"
)

var failures = []failure{
	failDNS, failRefused, failUnreachable, failReset, failClosed,
	failTimeoutConnect, failTimeoutTLS, failTimeoutHeader, failTimeoutTotal,
	failTLSExpired, failTLSAuthority, failTLSHostname, failTLS,
	failMalformed, failBlocked, failURL,
	failShutdown, failNoNetwork, failNoResource, failDNSHere, failSecret,
}

// own says that the failure is this machine's and costs the endpoint nothing.
func (f failure) own() bool {
	switch f {
	case failShutdown, failNoNetwork, failNoResource, failDNSHere, failSecret:
		return true
	}
	return false
}

// The causes that an attempt's context is ended with.
var (
	errAttemptTimeout = errors.New("attempt: time limit for the whole attempt")
	errShutdown       = errors.New("attempt: sender stops")
)

// phase is how far an attempt came.
type phase int32

// The phases, in order. A connection that was kept alive starts at phaseSend.
const (
	phaseStart phase = iota
	phaseDNS
	phaseConnect
	phaseTLS
	phaseSend
	phaseWait // the request is written
	phaseRead // the first byte of an answer is here
)

// classify names the failure behind a transport's error. cause is that of the
// attempt's context. net/http has only text for its handshake timeout and for
// what it calls malformed; how far the attempt came tells those apart.
func classify(err, cause error, at phase) failure {
	if _, ok := errors.AsType[*BlockedAddressError](err); ok {
		return failBlocked
	}
	if errors.Is(err, errSecret) {
		return failSecret
	}
	if errors.Is(cause, errAttemptTimeout) {
		return timeoutIn(at, failTimeoutTotal)
	}
	if cause != nil || errors.Is(err, context.Canceled) {
		return failShutdown
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return classifyDNS(dns)
	}
	if f := classifySyscall(err, at); f != "" {
		return f
	}
	if f := classifyTLS(err); f != "" {
		return f
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return timeoutIn(at, failTimeoutHeader)
	}
	switch {
	case at == phaseTLS:
		return failTLS
	case at <= phaseConnect:
		return failUnreachable
	case at == phaseRead:
		return failMalformed
	}
	return failClosed
}

func timeoutIn(at phase, otherwise failure) failure {
	switch at {
	case phaseDNS:
		return failDNS
	case phaseStart, phaseConnect:
		return failTimeoutConnect
	case phaseTLS:
		return failTimeoutTLS
	}
	return otherwise
}

// classifyDNS tells a name that cannot be resolved from a resolver that this
// machine cannot reach. A resolver that is silent looks like a name whose own
// servers are silent, and counts as the latter.
func classifyDNS(err *net.DNSError) failure {
	for _, own := range []error{
		syscall.ECONNREFUSED, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN,
		syscall.EPERM, syscall.EACCES, syscall.EMFILE, syscall.ENFILE,
	} {
		if errors.Is(err, own) {
			return failDNSHere
		}
	}
	return failDNS
}

func classifySyscall(err error, at phase) failure {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return ""
	}
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL:
		return failNoResource
	case syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EPERM, syscall.EACCES:
		return failNoNetwork
	case syscall.ECONNREFUSED:
		return failRefused
	case syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED:
		return failReset
	case syscall.EHOSTUNREACH, syscall.EHOSTDOWN:
		return failUnreachable
	case syscall.ETIMEDOUT:
		return timeoutIn(at, failReset)
	}
	return ""
}

func classifyTLS(err error) failure {
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return failTLSHostname
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return failTLSAuthority
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			return failTLSExpired
		}
		return failTLS
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return failTLS
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return failTLS
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return failTLS
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return failClosed
	}
	return ""
}
