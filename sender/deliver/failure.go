package deliver

// failure is why an attempt got no answer; "" when it got one. It is the
// metric's reason.
type failure string

// The failures that are the endpoint's.
const (
	failDNSNotFound    failure = "dns_not_found" // the name is not there
	failDNSTimeout     failure = "dns_timeout"   // its servers are silent
	failDNS            failure = "dns"           // they are in trouble, or answer nonsense
	failRefused        failure = "refused"
	failUnreachable    failure = "unreachable"
	failNoRoute        failure = "no_route" // from this machine to there, though it reaches others
	failReset          failure = "reset"
	failClosed         failure = "closed" // the connection ended before an answer
	failTimeoutConnect failure = "timeout_connect"
	failTimeoutTLS     failure = "timeout_tls"
	failTimeoutSend    failure = "timeout_send" // the request was not taken whole
	failTimeoutHeader  failure = "timeout_header"
	failTimeoutTotal   failure = "timeout_total"
	failTLSExpired     failure = "tls_expired"
	failTLSNotYetValid failure = "tls_not_yet_valid"
	failTLSHostname    failure = "tls_hostname"
	failTLSAuthority   failure = "tls_authority"
	failTLSChain       failure = "tls_incomplete_chain" // the intermediate certificate is not sent
	failTLSPlain       failure = "tls_plain_http"       // HTTP is answered on a port that TLS is expected on
	failPlainTLS       failure = "plain_tls"            // TLS, on a port that HTTP is expected on
	failPlainHTTP2     failure = "plain_http2"          // HTTP/2 without TLS (h2c)
	failTLSSelfSigned  failure = "tls_self_signed"
	failTLSCertificate failure = "tls_certificate"        // unfit in another way
	failTLSClientCert  failure = "tls_client_certificate" // the receiver wants one of us
	failTLSClosed      failure = "tls_closed"             // the connection ended amid the handshake, without an alert
	failTLSAlert       failure = "tls_alert"              // the other side refused
	failTLSProtocol    failure = "tls_protocol"           // no TLS, or none that both speak
	failHTTP2NotTaken  failure = "http2_not_taken"        // REFUSED_STREAM, or GOAWAY before it
	failHTTP2          failure = "http2"                  // GOAWAY, or a fault of the protocol
	failMalformed      failure = "malformed_response"
	failStatus         failure = "invalid_status"       // no number of three digits, or none that HTTP knows
	failSpokeFirst     failure = "spoke_before_request" // it was not an answer
	failFlood          failure = "flood"                // more than any answer needs
	failBlocked        failure = "blocked_address"
	failPort           failure = "blocked_port"
	failURL            failure = "unusable_url"
	failTooLarge       failure = "too_large"     // the URL of a GET, with the event in it
	failRender         failure = "unusable_body" // it cannot be put into the form that the endpoint asks for
)

// ReasonLeaseOver is the reason of an attempt that was not begun because the
// lease on its endpoint is over.
const ReasonLeaseOver = string(failLease)

// The failures that are ours.
const (
	failShutdown   failure = "shutdown"
	failNoNetwork  failure = "no_network"
	failNoResource failure = "no_resources" // descriptors, memory, local ports
	failDNSHere    failure = "dns_here"     // our name servers cannot be reached, are silent, or answer nobody
	failSecret     failure = "no_secret"
	failLease      failure = "lease_over" // another sender may have taken over
)

var failures = []failure{
	failDNSNotFound, failDNSTimeout, failDNS, failRefused, failUnreachable, failNoRoute, failReset, failClosed,
	failTimeoutConnect, failTimeoutTLS, failTimeoutSend, failTimeoutHeader, failTimeoutTotal,
	failTLSExpired, failTLSNotYetValid, failTLSHostname, failTLSAuthority, failTLSChain, failTLSPlain, failPlainTLS, failPlainHTTP2, failTLSSelfSigned, failTLSCertificate,
	failTLSClientCert, failTLSClosed, failTLSAlert, failTLSProtocol, failHTTP2NotTaken, failHTTP2,
	failMalformed, failStatus, failSpokeFirst, failFlood, failBlocked, failPort, failURL, failTooLarge, failRender,
	failShutdown, failNoNetwork, failNoResource, failDNSHere, failSecret, failLease,
}

// own says that the failure is this machine's and costs the endpoint nothing.
func (f failure) own() bool {
	switch f {
	case failShutdown, failNoNetwork, failNoResource, failDNSHere, failSecret, failLease:
		return true
	}
	return false
}

// lasts says of a failure of ours whether it may go on until somebody acts, and
// so is shown.
func (f failure) lasts() bool { return f.own() && f != failShutdown && f != failLease }

// shown is the failure as the account may see it. Why no connection came about
// would tell a closed port from a filtered one, and a name that does not exist
// from one that leads to an address inside: that is the operator's alone.
func (f failure) shown() failure {
	switch f {
	case failDNSNotFound, failDNSTimeout, failDNS, failDNSHere, failRefused, failTimeoutConnect, failNoNetwork, failNoRoute, failBlocked:
		return failUnreachable
	}
	return f
}

// unsent says that no connection came about on which a request could be made.
func (f failure) unsent() bool {
	switch f {
	case failDNSNotFound, failDNSTimeout, failDNS, failRefused, failUnreachable, failNoRoute, failTimeoutConnect, failTimeoutTLS,
		failTLSExpired, failTLSNotYetValid, failTLSHostname, failTLSAuthority, failTLSChain, failTLSPlain, failTLSSelfSigned, failTLSCertificate,
		failTLSClosed, failTLSProtocol, failBlocked, failPort, failURL, failTooLarge, failRender:
		return true
	}
	return false
}
