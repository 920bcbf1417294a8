package deliver

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"walhook/outbox"
)

// DefaultPrefix is what the subjects of a NATS feed begin with, unless it says otherwise.
const DefaultPrefix = "walhook"

// maxSubject bounds a subject, in bytes: servers end a connection on which a line of the
// protocol is longer than 4,096 bytes.
const maxSubject = 3800

// natsSubject is where an event of a feed is published: prefix.account.schema.type.
func natsSubject(e *outbox.Endpoint, event *outbox.Event) string {
	return strings.Join([]string{e.SubjectPrefix, natsToken(event.Account), natsToken(event.Schema), natsToken(event.Type)}, ".")
}

// natsToken writes a text as one token of a subject: what a token may not hold, blanks and
// control characters of Unicode, and the percent sign, is percent-encoded. No text of the outbox holds %00, which stands for an
// empty one.
func natsToken(text string) string {
	if text == "" {
		return "%00"
	}
	if strings.IndexFunc(text, noToken) < 0 {
		return text
	}
	var b strings.Builder
	for at, r := range text {
		if _, size := utf8.DecodeRuneInString(text[at:]); noToken(r) {
			b.WriteString(escapeBytes(text[at:at+size], func(byte) bool { return false }))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// noToken reports what a token cannot hold as it is.
func noToken(r rune) bool {
	return unicode.IsSpace(r) || unicode.In(r, unicode.Cc, unicode.Cf) || r == utf8.RuneError || strings.ContainsRune(".*>%", r)
}
