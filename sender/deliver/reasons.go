package deliver

import "walhook/schemas"

// What to do about several failures alike.
const (
	fixNothing   = "nothing"
	fixNames     = "check the name in the URL and its name servers; if many endpoints have this reason, check this machine's resolver"
	fixReach     = "the receiver's side checks server, port and firewall; if many endpoints have this reason, check this machine's way out and `--egress-address`"
	fixSlow      = "the receiver's side stores the event, answers, and processes it afterwards"
	fixCert      = "the receiver's side installs a certificate that is valid now, for this host"
	fixTLS       = "the receiver's side accepts TLS 1.2 or 1.3 on this port, for this host name"
	fixHTTP      = "the receiver's side looks at its server and the proxies in front of it; the `detail` of the log line says what walhook got"
	fixCarriesOn = "nothing: walhook makes the attempt again"
)

const (
	accountURL  = "walhook may not, or cannot, use the URL: set another"
	accountCert = "the certificate is not valid now, or not for this host: install one that is"
	accountTLS  = "your server and walhook agree on no version or cipher of TLS, or your server refuses the host name"
	accountSlow = "your server did not take the request, or did not answer, in time: store the event, answer, and process it afterwards"
	accountEnd  = "your server or a proxy ended the connection before it answered"
	accountHTTP = "your server ended the HTTP/2 stream or connection before it answered"
	accountBad  = "the answer is not HTTP, or has no valid status"
	accountOurs = "an error on our side: the attempt does not count, and walhook makes it again"
)

// explanations are those of every failure: what happened, what to do, and, where the
// account sees the name, what its user reads.
var explanations = map[failure][3]string{
	failDNSNotFound:     {"the name does not exist", "ask the account for another URL", ""},
	failDNSTimeout:      {"the name's servers are silent", fixNames, ""},
	failDNS:             {"the name's servers fail, or answer nonsense", fixNames, ""},
	failRefused:         {"the receiver refuses connections", fixReach, ""},
	failUnreachable:     {"the receiver, or its network, cannot be reached", fixReach, "walhook could not connect. Check the name, the address, the port and your firewall; the host must have a public address"},
	failNoRoute:         {"this machine has no route to the receiver, though it reaches others", "give this machine IPv6, or IPv4, whichever the receiver has alone; or ask the account for another address", ""},
	failTimeoutConnect:  {"no connection within 5 s", fixReach, ""},
	failBlocked:         {"the address is not public, and no `--allow-cidr` has it; or `--deny-cidr` has it", "allow the network with `--allow-cidr` and restart, or ask the account for a public address", ""},
	failPort:            {"`--allow-ports` lacks the port", "allow the port with `--allow-ports` and restart, or ask the account for another", accountURL},
	failURL:             {"the URL cannot be used", "ask the account for another; `walhook endpoints` says what is wrong with it", accountURL},
	failTimeoutTLS:      {"no end of the TLS handshake within 5 s", fixReach, "the TLS handshake did not end within 5 s"},
	failTLSExpired:      {"the certificate has expired", fixCert, accountCert},
	failTLSNotYetValid:  {"the certificate is not valid yet, or this machine's clock is slow", "check this machine's clock; otherwise " + fixCert, accountCert},
	failTLSHostname:     {"the certificate is for another host", fixCert, accountCert},
	failTLSAuthority:    {"this machine does not know the certificate's authority", "if many endpoints have this reason, renew this machine's certificate authorities; otherwise the receiver's side installs a certificate of a public one", "the certificate's authority is not a public one"},
	failTLSChain:        {"the receiver does not send the intermediate certificate", "the receiver's side lets its server send its whole chain (`fullchain.pem`)", "your server sends no intermediate certificate: let it send its whole chain (`fullchain.pem`)"},
	failTLSSelfSigned:   {"the certificate is signed by itself", fixCert, accountCert},
	failTLSCertificate:  {"the certificate is unfit in another way", fixCert, accountCert},
	failTLSClientCert:   {"the receiver requires a client certificate, and walhook has none that it accepts", "set `--client-cert`, or `--client-certs` for its host; otherwise the receiver's side accepts connections without one, and checks the signature", "your server requires a client certificate, and walhook has none that it accepts: ask the operator for one, or accept connections without one, and check the signature"},
	failTLSClosed:       {"the receiver closed or reset the connection during the TLS handshake, without an alert", fixTLS, "your server closed the connection during the TLS handshake: let it take TLS 1.2 or 1.3 on this port, for this host name"},
	failTLSAlert:        {"the receiver refused the handshake with another alert", fixTLS, accountTLS},
	failTLSProtocol:     {"the receiver does not speak TLS, or no version or cipher that walhook speaks", fixTLS, accountTLS},
	failTLSPlain:        {"the receiver answers HTTP where the URL says https", "ask the account for the port that speaks TLS, or for an http URL", "the URL says https, but this port speaks HTTP"},
	failPlainTLS:        {"the receiver speaks TLS where the URL says http", "ask the account for an https URL", "the URL says http, but this port speaks TLS"},
	failPlainHTTP2:      {"the receiver speaks HTTP/2 without TLS (h2c)", "the receiver's side speaks HTTP/1.1, or HTTP/2 over TLS", "your server speaks HTTP/2 without TLS (h2c): let it speak HTTP/1.1, or HTTP/2 over TLS"},
	failSpokeFirst:      {"the receiver sent something before the request was written", "ask the account for the port of its HTTP server", "your server sent something before the request: the port is probably not one of HTTP"},
	failTimeoutSend:     {"the receiver did not take the request", fixSlow, accountSlow},
	failTimeoutHeader:   {"no answer within 15 s", fixSlow, accountSlow},
	failTimeoutTotal:    {"the attempt took longer than 20 s", fixSlow, accountSlow},
	failReset:           {"the receiver reset the connection before it answered", fixHTTP, accountEnd},
	failClosed:          {"the receiver closed the connection before it answered", fixHTTP, accountEnd},
	failHTTP2NotTaken:   {"the receiver refused the HTTP/2 stream, or closed the connection to new ones", fixHTTP, accountHTTP},
	failHTTP2:           {"the receiver ended the HTTP/2 stream or connection, or breaks the protocol", fixHTTP, accountHTTP},
	failMalformed:       {"the answer is not HTTP", fixHTTP, accountBad},
	failStatus:          {"the answer's status is not a number of three digits that HTTP knows", fixHTTP, accountBad},
	failFlood:           {"the receiver sent more than an answer needs", fixHTTP, "your server sent far more than an answer"},
	failTooLarge:        {"the URL of a `GET`, with the event in it, is longer than 8 KiB: the event is a dead letter at once", "let the webhook use `post`, then replay the event", "the URL of a `GET` would be longer than 8 KiB: let the webhook use `post`"},
	failRender:          {"the event cannot be put into the form that the webhook asks for", "give the webhook another `format`", "the event cannot be put into the form that the webhook asks for: ask for another `format`"},
	failShutdown:        {"walhook stops; the event is held", fixCarriesOn, accountOurs},
	failLease:           {"another sender may have taken over; the event is held", fixCarriesOn, accountOurs},
	failNoNetwork:       {"this machine has no network; the event is held", "check the routes and the firewall of this machine", ""},
	failNoResource:      {"this machine has no file descriptors, memory or local ports left; the event is held", "raise `LimitNOFILE`; correct an `--egress-address` that is not this machine's", accountOurs},
	failDNSHere:         {"this machine's name servers cannot be reached, are silent, or refuse every name; the event is held", "check `/etc/resolv.conf` and what it names", ""},
	failNATSDown:        {"a feed's NATS servers cannot be reached, or the connection ended; the stream may have stored the event", "check the servers, what their logs say of it (such as a slow consumer), and the way from this machine to them; walhook connects again by itself", ""},
	failNATSRefused:     {"the NATS server refuses walhook's credentials, or they were revoked or have expired", fixNATSLogin, ""},
	failNATSTLS:         {"walhook and the NATS server agree on no TLS: a certificate, its authority, or its host", "the attempt's `detail` says which: renew the server's certificate, name its authority with `--ca-file`, or give walhook a certificate with `--client-cert`", ""},
	failNATSPermission:  {"walhook's user may not publish on the event's subject; events of other subjects continue", "let the NATS server allow the user to publish on the feed's prefix (`walhook.>`), then replace the file of `--nats-credentials` if its permissions are in it", ""},
	failNATSInbox:       {"walhook's user may not subscribe to `_INBOX.>`, so that no acknowledgement arrives; the stream may have stored the event", "let the NATS server allow the user to subscribe to `_INBOX.>`, and to publish with replies to it; walhook connects again by itself", ""},
	failNATSNoStream:    {"no stream takes the feed's subjects, it has no leader at present, or the server is cut off from it: walhook then goes to another server of the cluster", fixNATSStream, ""},
	failNATSNoSubject:   {"no stream takes the event's subject, while one takes others of the feed's; events of other subjects continue", fixNATSStream, ""},
	failNATSFull:        {"the stream, or its storage, is full and discards new messages", "let its consumers catch up, or raise its limits; walhook sends what waits by itself", ""},
	failNATSSubjectFull: {"the stream has as many events of this account, schema and type as `--max-msgs-per-subject` allows, and refuses more; events of other subjects continue", "let its consumers catch up, or raise the limit; walhook sends what waits by itself", ""},
	failNATSTooLarge:    {"the event is larger than the NATS server (`max_payload`) or the stream (`--max-msg-size`) takes, or its subject is longer than 3,800 bytes: it is a dead letter at once", "raise the limit, then replay the event", ""},
	failNATSRejected:    {"JetStream answered with another error: the attempt's `detail` has it", fixNATSStream, ""},
	failNATSTimeout:     {"the stream did not acknowledge the event within `--attempt-timeout`; it may have stored it", "check the stream's replicas and the load of the servers", ""},
	failNATSCredentials: {"this machine cannot read the file of `--nats-credentials`; the event is held", "correct the file or its permissions", ""},
	failSecret:          {"walhook cannot decrypt the endpoint's secret, or cannot sign with it; the event is held", "start walhook with the `--secret-key` that encrypted it; or rotate the secret, or correct it in the account's column", accountOurs},
}

// Of a feed over NATS, which no account sees.
const (
	fixNATSStream = "`walhook doctor` (`feeds.nats`) says which stream there is, and prints the `nats` command that fixes it"
	fixNATSLogin  = "replace the file of `--nats-credentials`, or correct what the NATS server says of its user; walhook reads the file at each connection, and connects again by itself"
)

// statusReasons explain the answers.
var statusReasons = []schemas.Reason{
	{Name: "2xx", Cause: "the receiver took the event", Fix: fixNothing},
	{Name: natsAcked, Cause: "the stream of a feed over NATS stored the event", Fix: fixNothing},
	{Name: natsDuplicate, Cause: "the stream had the event already, and dropped it", Fix: fixNothing},
	{Name: "3xx", Cause: "the receiver redirects, which walhook does not follow; retried", Fix: "ask the account for the URL that it redirects to"},
	{Name: "4xx", Cause: "the receiver refuses the event; retried", Fix: fixHTTP},
	{Name: "408", Cause: "the receiver waited for the request for too long; retried", Fix: fixSlow},
	{Name: "410", Cause: "the receiver wants no more events: the endpoint is disabled", Fix: "ask the account; `walhook endpoints enable` starts it again"},
	{Name: "429", Cause: "the receiver wants fewer requests: the endpoint pauses", Fix: "nothing, or set a rate limit for the webhook"},
	{Name: "503", Cause: "the receiver is not available: the endpoint pauses", Fix: fixHTTP},
	{Name: "5xx", Cause: "the receiver has an error; retried", Fix: fixHTTP},
}

// Reasons explains every reason of an attempt: of answers, then of attempts without one.
func Reasons() []schemas.Reason {
	all := append([]schemas.Reason{}, statusReasons...)
	for _, f := range failures {
		e := explanations[f]
		all = append(all, schemas.Reason{Name: string(f), Cause: e[0], Fix: e[1], Account: e[2]})
	}
	return all
}
