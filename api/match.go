package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"walhook/outbox/admin"
)

const (
	// etagHeader identifies the state of a webhook (RFC 9110, section 8.8.3).
	etagHeader = "ETag"
	// matchHeader makes a change depend on that state (RFC 9110, section 13.1.1).
	matchHeader = "If-Match"
)

// tagged marks a call whose answer has the ETag of its webhook.
func tagged(op huma.Operation) huma.Operation { return marked(op, etagHeader, true) }

// conditional marks a call that changes a webhook and honours If-Match.
func conditional(op huma.Operation) huma.Operation {
	op.Parameters = append(op.Parameters, &huma.Param{
		Name: matchHeader, In: "header",
		Description: "the ETag that reading the webhook gave, or several, or *: the call changes the webhook only as long as one of them is its ETag. " +
			"Otherwise it is a 412, and nothing is changed. Weak tags (W/…) match nothing.",
		Schema:  &huma.Schema{Type: huma.TypeString},
		Example: `"12-3"`,
	})
	return marked(op, matchHeader, true)
}

// etagOf returns the ETag of a webhook. Every change of the webhook raises its
// revision, and no endpoint number is used again.
func etagOf(w *admin.Webhook) string { return fmt.Sprintf(`"%d-%d"`, w.Endpoint, w.Revision) }

// withETag adds a webhook's ETag to the answer.
func (c *call) withETag(w *admin.Webhook) {
	if w.Revision > 0 && c.header != nil {
		c.header.Set(etagHeader, etagOf(w))
	}
}

// condition is the content of If-Match: any webhook for * and without the header,
// otherwise a webhook with one of these ETags.
type condition struct {
	there bool
	any   bool
	tags  []string // the strong ones, with their quotes
	weak  bool     // the header has weak ones, too
}

// check returns nil when the state of w fulfils the condition.
func (c condition) check(w *admin.Webhook) error {
	if !c.there || c.any || slices.Contains(c.tags, etagOf(w)) {
		return nil
	}
	message := "precondition failed: the webhook was changed since it was read, by another client, by an operator or by walhook itself; read it again, and send the change with its present ETag"
	if c.weak && len(c.tags) == 0 {
		message = "precondition failed: a weak tag (W/…) matches nothing; send the ETag as reading the webhook gave it, as a proxy that compresses answers may have made it weak"
	}
	f := badRequest(matchHeader, message)
	f.status = http.StatusPreconditionFailed
	return f
}

// conditionOf reads the header, which may occur more than once. A list may have empty
// elements (RFC 9110, section 5.6.1.2).
func conditionOf(sent []string) (c condition, err error) {
	if len(sent) == 0 {
		return c, nil
	}
	wrong := badRequest(matchHeader, `cannot be read: want *, or the ETag that reading the webhook gave, with its quotes, such as "12-3"; several with commas between`)
	c.there = true
	rest := strings.Trim(strings.Join(sent, ","), " \t,")
	if rest == "*" {
		c.any = true
		return c, nil
	}
	for rest != "" {
		text, weak := strings.CutPrefix(rest, "W/")
		text, quoted := strings.CutPrefix(text, `"`)
		tag, after, closed := strings.Cut(text, `"`)
		if !quoted || !closed || strings.ContainsFunc(tag, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return c, wrong
		}
		if weak {
			c.weak = true
		} else {
			c.tags = append(c.tags, `"`+tag+`"`)
		}
		after = strings.TrimLeft(after, " \t")
		if after != "" && after[0] != ',' {
			return c, wrong
		}
		rest = strings.TrimLeft(after, " \t,")
	}
	if len(c.tags) == 0 && !c.weak {
		return c, wrong
	}
	return c, nil
}
