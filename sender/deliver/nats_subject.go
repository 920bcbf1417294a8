package deliver

import (
	"strings"

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

// natsToken writes a text as one token of a subject: what a token may not hold, and the
// percent sign, is percent-encoded. No text of the outbox holds %00, which stands for an
// empty one.
func natsToken(text string) string {
	if text == "" {
		return "%00"
	}
	return escapeBytes(text, func(c byte) bool {
		return c > ' ' && c != 0x7f && c != '.' && c != '*' && c != '>' && c != '%'
	})
}
