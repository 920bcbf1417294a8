// Package address reads the URLs and hosts of receivers. It is pure: it looks up no name
// and dials nothing.
//
//	URLFault ──▶ why a URL cannot be used, for people; "" where it can
//	RequestURL, JoinQuery ──▶ the URL that a request is made to
//	HostOf, NormalHost, NamedHost ──▶ the one form of a host
//	Redact ──▶ what people may see of a URL
//
// All parts of walhook read a URL with this package: to store it, dial it, hold it, limit it
// or show it. So no two parts can take one text for two hosts. A host has one normal form,
// whether it is written in upper case, in Unicode (UTS 46), with a dot at its end, or as an
// address in base 8, 10 or 16.
//
// An error quotes nothing of a URL, since a URL may contain a password. A text that is not a
// URL has no host and is not shown.
//
// Whether an address may be dialled is decided at the moment of dialling, in
// sender/deliver/egress.go.
package address
