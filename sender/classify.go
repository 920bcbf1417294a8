package sender

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

// The causes that an attempt's context is ended with.
var (
	errAttemptTimeout = errors.New("attempt: time limit for the whole attempt")
	errShutdown       = errors.New("attempt: sender stops")
	errLeaseOver      = errors.New("attempt: the lease is over")
	errBodyTimeout    = errors.New("attempt: enough of the answer's body")
)

// errNotTaken is net/http's question whether it may repeat a request, answered
// with no: the receiver has refused the stream, or gone away before it.
var errNotTaken = errors.New("the receiver did not take the request (REFUSED_STREAM or GOAWAY)")

// errSpokeFirst says that a receiver had sent something before a request was
// written, which is an answer to nothing.
var errSpokeFirst = errors.New("the receiver spoke before the request was written")

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

func (p phase) String() string {
	return [...]string{"before connecting", "name resolution", "connecting", "TLS handshake", "sending", "awaiting the answer", "reading the answer"}[p]
}

// classify names the failure behind a transport's error. cause is that of the
// attempt's context. net/http has only text for much of what goes wrong; how
// far the attempt came tells it apart.
func classify(err, cause error, p *progress) failure {
	at := p.phase()
	if errors.Is(err, errFlood) {
		return failFlood
	}
	if errors.Is(err, errSpokeFirst) {
		return failSpokeFirst
	}
	if _, ok := errors.AsType[*statusError](err); ok {
		return failStatus
	}
	if _, ok := errors.AsType[*BlockedAddressError](err); ok {
		return failBlocked
	}
	if _, ok := errors.AsType[*BlockedPortError](err); ok {
		return failPort
	}
	if errors.Is(cause, errNotTaken) {
		return failHTTP2NotTaken
	}
	if errors.Is(err, errLeaseOver) || errors.Is(cause, errLeaseOver) {
		return failLease
	}
	if errors.Is(cause, errAttemptTimeout) {
		return timeoutIn(at, failTimeoutTotal)
	}
	if cause != nil || errors.Is(err, context.Canceled) {
		return failShutdown
	}
	if errors.Is(err, errTLSTimeout) {
		return failTimeoutTLS
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
	case at <= phaseConnect:
		return failUnreachable
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return failClosed
	case p.http2.Load() && errors.Is(err, errNotTaken):
		return failHTTP2NotTaken
	case p.http2.Load():
		return failHTTP2
	case at == phaseTLS:
		return failTLSProtocol
	case at == phaseRead:
		return failMalformed
	}
	return failClosed
}

func timeoutIn(at phase, otherwise failure) failure {
	switch at {
	case phaseDNS:
		return failDNSTimeout
	case phaseStart, phaseConnect:
		return failTimeoutConnect
	case phaseTLS:
		return failTimeoutTLS
	case phaseSend:
		return failTimeoutSend
	}
	return otherwise
}

func classifyDNS(err *net.DNSError) failure {
	switch {
	case err.IsNotFound:
		return failDNSNotFound
	case err.IsTimeout:
		return failDNSTimeout
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
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		if c := unknown.Cert; c != nil && bytes.Equal(c.RawIssuer, c.RawSubject) {
			return failTLSSelfSigned
		}
		return failTLSAuthority
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch {
		case invalid.Reason != x509.Expired:
			return failTLSCertificate
		case time.Now().Before(invalid.Cert.NotBefore):
			return failTLSNotYetValid
		}
		return failTLSExpired
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return failTLSCertificate
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return failTLSProtocol
	}
	// crypto/tls does not export its alerts, but says who raised one.
	if op, ok := errors.AsType[*net.OpError](err); ok {
		switch op.Op {
		case "remote error":
			return failTLSAlert
		case "local error":
			return failTLSProtocol
		}
	}
	return ""
}
