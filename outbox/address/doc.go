// Package address reads the URLs and hosts of receivers, and is pure: it looks no name
// up and dials nothing.
//
//	URLFault ──▶ why a URL cannot be used, for people; "" where it can
//	RequestURL ──▶ the URL that a request is made to
//	HostOf, NormalHost, NamedHost ──▶ the one form of a host
//	Redact ──▶ what people may see of a URL
//
// What is stored, dialled, held, limited and shown goes by the same reading of a URL:
// no two parts of walhook can take one text for two hosts. A host has one normal form,
// however it is written: upper case, Unicode (UTS 46), a dot at its end, an address in
// base 8, 10 or 16.
//
// Errors and faults quote nothing of a URL, since it may hold a password. A text that
// cannot be read has no host and is not shown.
//
// Whether an address may be dialled is decided in sender/deliver, when it is dialled.
package address
