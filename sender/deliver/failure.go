package deliver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"reflect"
	"syscall"
	"time"
)

// failure is why an attempt got no answer; "" when it got one. It is the reason in
// metrics.
type failure string

// The failures that are the endpoint's.
const (
	failDNSNotFound    failure = "dns_not_found" // the name does not exist
	failDNSTimeout     failure = "dns_timeout"   // its servers do not answer
	failDNS            failure = "dns"           // its servers answer with an error
	failRefused        failure = "refused"
	failUnreachable    failure = "unreachable"
	failNoRoute        failure = "no_route" // to this destination, while others are reached
	failReset          failure = "reset"
	failClosed         failure = "closed" // the connection ended before an answer
	failTimeoutConnect failure = "timeout_connect"
	failTimeoutTLS     failure = "timeout_tls"
	failTimeoutSend    failure = "timeout_send" // the receiver did not read the whole request
	failTimeoutHeader  failure = "timeout_header"
	failTimeoutTotal   failure = "timeout_total"
	failTLSExpired     failure = "tls_expired"
	failTLSNotYetValid failure = "tls_not_yet_valid"
	failTLSHostname    failure = "tls_hostname"
	failTLSAuthority   failure = "tls_authority"
	failTLSChain       failure = "tls_incomplete_chain" // the receiver sends no intermediate certificate
	failTLSPlain       failure = "tls_plain_http"       // the receiver speaks plain HTTP for an https URL
	failPlainTLS       failure = "plain_tls"            // the receiver speaks TLS for an http URL
	failPlainHTTP2     failure = "plain_http2"          // HTTP/2 without TLS (h2c)
	failTLSSelfSigned  failure = "tls_self_signed"
	failTLSCertificate failure = "tls_certificate"        // invalid in another way
	failTLSClientCert  failure = "tls_client_certificate" // the receiver requires a client certificate
	failTLSClosed      failure = "tls_closed"             // the connection ended during the handshake, without an alert
	failTLSAlert       failure = "tls_alert"              // the receiver refused
	failTLSProtocol    failure = "tls_protocol"           // no TLS, or no version that both speak
	failHTTP2NotTaken  failure = "http2_not_taken"        // REFUSED_STREAM, or GOAWAY before it
	failHTTP2          failure = "http2"                  // GOAWAY, or an error of the protocol
	failMalformed      failure = "malformed_response"
	failStatus         failure = "invalid_status"       // not three digits, or not in HTTP's range
	failSpokeFirst     failure = "spoke_before_request" // the receiver sent bytes before the request
	failFlood          failure = "flood"                // more bytes than any answer needs
	failBlocked        failure = "blocked_address"
	failPort           failure = "blocked_port"
	failURL            failure = "unusable_url"
	failTooLarge       failure = "too_large"     // the URL of a GET, with the event in it
	failRender         failure = "unusable_body" // it cannot be converted to the endpoint's format
)

// ReasonLeaseOver is the reason of an attempt that did not begin because the lease on
// its endpoint has expired.
const ReasonLeaseOver = string(failLease)

// The failures of this machine.
const (
	failShutdown   failure = "shutdown"
	failNoNetwork  failure = "no_network"
	failNoResource failure = "no_resources" // descriptors, memory, local ports
	failDNSHere    failure = "dns_here"     // this machine's name servers are unreachable or do not answer
	failSecret     failure = "no_secret"
	failLease      failure = "lease_over" // another sender may have taken over
)

var failures = []failure{
	failDNSNotFound, failDNSTimeout, failDNS, failRefused, failUnreachable, failNoRoute, failReset, failClosed,
	failTimeoutConnect, failTimeoutTLS, failTimeoutSend, failTimeoutHeader, failTimeoutTotal,
	failTLSExpired, failTLSNotYetValid, failTLSHostname, failTLSAuthority, failTLSChain, failTLSPlain, failPlainTLS, failPlainHTTP2, failTLSSelfSigned, failTLSCertificate,
	failTLSClientCert, failTLSClosed, failTLSAlert, failTLSProtocol, failHTTP2NotTaken, failHTTP2,
	failMalformed, failStatus, failSpokeFirst, failFlood, failBlocked, failPort, failURL, failTooLarge, failRender,
	failNATSDown, failNATSRefused, failNATSTLS, failNATSPermission, failNATSInbox, failNATSNoStream, failNATSNoSubject, failNATSFull, failNATSSubjectFull, failNATSTooLarge, failNATSRejected, failNATSTimeout,
	failShutdown, failNoNetwork, failNoResource, failDNSHere, failSecret, failNATSCredentials, failLease,
}

// own says that the failure is this machine's: it does not count against the endpoint.
func (f failure) own() bool {
	switch f {
	case failShutdown, failNoNetwork, failNoResource, failDNSHere, failSecret, failNATSCredentials, failLease:
		return true
	}
	return false
}

// lasts says that a failure of this machine may last until an operator acts, so that
// metrics and status show it.
func (f failure) lasts() bool { return f.own() && f != failShutdown && f != failLease }

// shown is the failure as the account may see it. The cause of a failed connection
// would tell a closed port from a filtered one, and a name that does not exist from
// one of an internal address: only the operator sees it.
func (f failure) shown() failure {
	switch f {
	case failDNSNotFound, failDNSTimeout, failDNS, failDNSHere, failRefused, failTimeoutConnect, failNoNetwork, failNoRoute, failBlocked:
		return failUnreachable
	}
	return f
}

// unsent says that there was no connection to send the request on.
func (f failure) unsent() bool {
	switch f {
	case failDNSNotFound, failDNSTimeout, failDNS, failRefused, failUnreachable, failNoRoute, failTimeoutConnect, failTimeoutTLS,
		failTLSExpired, failTLSNotYetValid, failTLSHostname, failTLSAuthority, failTLSChain, failTLSPlain, failTLSSelfSigned, failTLSCertificate,
		failTLSClosed, failTLSProtocol, failBlocked, failPort, failURL, failTooLarge, failRender,
		failNATSRefused, failNATSTLS, failNATSNoStream, failNATSNoSubject, failNATSFull, failNATSSubjectFull, failNATSTooLarge:
		return true
	}
	return false
}

// The causes of the end of an attempt's context.
var (
	errAttemptTimeout = errors.New("attempt: time limit for the whole attempt")
	errLeaseOver      = errors.New("attempt: the lease expired")
	errBodyTimeout    = errors.New("attempt: read enough of the answer's body")
)

// errNotTaken keeps net/http from repeating a request: the receiver has refused the
// stream, or sent GOAWAY before it.
var errNotTaken = errors.New("the receiver rejected the request (REFUSED_STREAM or GOAWAY)")

// errWrittenBefore refuses a second request of one attempt: the first one's connection
// ended without an answer.
var errWrittenBefore = errors.New("the connection ended without an answer to the request")

// errSpokeFirst says that a receiver sent bytes before the request, so they are not an
// answer.
var errSpokeFirst = errors.New("the receiver spoke before the request was written")

// classifyError names the failure behind a client's error. cause is that of the
// attempt's context. Many errors of net/http are only text; the phase of the attempt
// tells them apart.
func classifyError(err, cause error, p *progress) failure {
	at := p.phase()
	if errors.Is(err, errFlood) {
		return failFlood
	}
	if said, ok := errors.AsType[*answerError](err); ok {
		if f := foreign(said.begins); f == failPlainHTTP2 && p.wire.Load() != nil {
			return failHTTP2 // over TLS, but not agreed on there (ALPN)
		} else if f != "" {
			return f // also if the attempt timed out while waiting for the rest
		}
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
	if errors.Is(err, errNotTaken) {
		return failHTTP2NotTaken
	}
	if errors.Is(err, errWrittenBefore) {
		return failClosed
	}
	if errors.Is(err, errLeaseOver) {
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
	// An alert says more than the end of the connection that follows it.
	asked := p.asked() || errors.Is(err, errCertificateAsked)
	if isAboutOurCertificate(err, asked) {
		return failTLSClientCert
	}
	// Java, for one, closes without an alert: up to TLS 1.2 during the handshake, in
	// TLS 1.3 after it.
	if asked && at >= phaseTLS && at < phaseRead && isEnd(err) {
		return failTLSClientCert
	}
	if at == phaseTLS && isEnd(err) {
		return failTLSClosed
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
	case p.http2.Load():
		return failHTTP2
	case at == phaseTLS:
		return failTLSProtocol
	case at == phaseRead:
		return failMalformed
	case asked: // net/http's error for an end before the request is only text
		return failTLSClientCert
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

// isEnd says that the receiver closed or reset the connection.
func isEnd(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// alertOf is the error alert that the receiver sent (RFC 8446, 6); 0 for none.
func alertOf(err error) tls.AlertError {
	// crypto/tls does not export its alerts, but Op says which side raised one, and
	// its type is a number.
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return 0
	}
	if v := reflect.ValueOf(op.Err); v.Kind() == reflect.Uint8 {
		return tls.AlertError(v.Uint())
	}
	return 0
}

// isAboutOurCertificate says that the receiver refuses a client without a certificate.
// TLS 1.3 has an alert for that. Servers of earlier versions, and Java's of every
// version, send other alerts after they have asked for a certificate.
func isAboutOurCertificate(err error, asked bool) bool {
	switch alertOf(err) {
	case 116: // certificate_required
		return true
	case 40, 41, 42, 43, 44, 45, 46, 48, 49: // handshake_failure, …_certificate, certificate_…, unknown_ca, access_denied
		return asked
	}
	return false
}

// isIncomplete says that the certificate of the receiver's issuer is missing.
func isIncomplete(sent []*x509.Certificate) bool {
	for i, c := range sent {
		if i > 0 && bytes.Equal(c.RawSubject, sent[0].RawIssuer) {
			return false
		}
	}
	return len(sent) > 0 && !bytes.Equal(sent[0].RawIssuer, sent[0].RawSubject)
}

// foreign recognizes a protocol other than HTTP/1 by its first bytes: a record of TLS
// (RFC 8446, 5.1), or a SETTINGS frame of HTTP/2 (RFC 9113, 3.4). "" is neither.
func foreign(begins []byte) failure {
	switch {
	case len(begins) >= 3 && (begins[0] == 0x15 || begins[0] == 0x16) && begins[1] == 3:
		return failPlainTLS
	case len(begins) >= http2FrameHead && begins[0] == 0 && begins[3] == 4 && bytes.Equal(begins[4:http2FrameHead], make([]byte, 5)):
		return failPlainHTTP2
	}
	return ""
}

// hint says what to do about a failure whose name does not say it; "" for the others.
func (f failure) hint() string {
	switch f {
	case failTLSChain:
		return "; the receiver sends no intermediate certificate: it must send its whole chain (fullchain.pem). If its authority is private, name it with --ca-file"
	case failTLSPlain:
		return "; the receiver answers plain HTTP although the URL says https: use http, or a port that speaks TLS"
	case failPlainTLS:
		return "; the receiver speaks TLS although the URL says http: use https"
	case failPlainHTTP2:
		return "; the receiver speaks HTTP/2 without TLS (h2c), which is not supported: let it speak HTTP/1.1, or HTTP/2 over TLS"
	case failTLSClientCert:
		return "; the receiver asks for a client certificate, and ends connections without one. walhook presented none that it accepts: set --client-cert, or let the receiver accept connections without one, and check the signature"
	case failTLSClosed:
		return "; the receiver ended the connection during the TLS handshake and did not say why: let its server take TLS 1.2 or 1.3 on this port, for this host name"
	}
	return ""
}

func classifyTLS(err error) failure {
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return failTLSHostname
	}
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		checked, _ := errors.AsType[*tls.CertificateVerificationError](err)
		alone := checked == nil || len(checked.UnverifiedCertificates) < 2
		if c := unknown.Cert; c != nil && alone && bytes.Equal(c.RawIssuer, c.RawSubject) {
			return failTLSSelfSigned
		}
		// The error has more text if a known certificate has the issuer's name.
		named := unknown.Error() != x509.UnknownAuthorityError{}.Error()
		if checked != nil && !named && isIncomplete(checked.UnverifiedCertificates) {
			return failTLSChain
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
	if record, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		if string(record.RecordHeader[:]) == "HTTP/" {
			return failTLSPlain
		}
		if h := record.RecordHeader; h[0] == 0 && h[3] == 4 && h[4] == 0 { // SETTINGS, as in foreign
			return failPlainHTTP2
		}
		return failTLSProtocol
	}
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
