package main

import "testing"

func TestFeeds_RefuseWhatChangesNothingAndURLsOfNoFeed(t *testing.T) {
	refusesUsage(t, "nothing to change: set one or more of --url, --prefix, --hook, --schemas, --types", "feeds", "change", "billing", "--outbox", nowhere)
	for url, want := range map[string]string{
		"billing.internal": "the URL has no scheme: want https://… or http://…, or servers of NATS, nats://… or tls://…",
		"ftp://x.example":  "the URL's scheme is none of https, http, nats and tls",
		"nats://x/y":       "the URL has a path, a query or a fragment: want servers alone",
	} {
		refusesUsage(t, want, "feeds", "add", "billing", "--url", url, "--outbox", nowhere)
	}
	refusesUsage(t, "the prefix is for feeds over NATS", "feeds", "add", "billing", "--url", "https://x.example", "--prefix", "p", "--outbox", nowhere)
}
