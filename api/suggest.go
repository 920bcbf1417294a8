package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/danielgtaylor/huma/v2"
)

// synonyms are the names that other APIs have for our fields, in lower case and with
// letters only.
var synonyms = map[string][]string{
	"url": {"uri"}, "callbackurl": {"uri"}, "callback": {"uri"}, "targeturl": {"uri"}, "endpoint": {"uri"}, "webhookurl": {"uri"},
	"endpointurl": {"uri"}, "payloadurl": {"uri"}, "hookurl": {"uri"}, "href": {"uri"}, "address": {"uri"}, "destination": {"uri"},
	"event": {"hook"}, "events": {"hook", "schemas", "types"}, "eventtype": {"hook"}, "eventtypes": {"hook", "schemas", "types"}, "topic": {"hook"},
	"topics": {"hook", "schemas"}, "enabledevents": {"hook", "schemas", "types"}, "trigger": {"hook"}, "triggers": {"hook"},
	"method": {"http_verb"}, "httpmethod": {"http_verb"}, "verb": {"http_verb"},
	"active": {"enabled"}, "disabled": {"enabled"}, "status": {"enabled"}, "paused": {"enabled"},
	"description": {"name"}, "title": {"name"}, "label": {"name"},
	"tables": {"schemas"}, "filter": {"schemas", "types", "target"}, "filters": {"schemas", "types", "target"},
	"contenttype": {"format"}, "maxretries": {"retries"}, "retrycount": {"retries"}, "attempts": {"retries"},
	"metadata": {"custom_data"}, "data": {"custom_data"}, "params": {"custom_data"}, "rate": {"rate_limit"}, "ratelimit": {"rate_limit"}, "throttle": {"rate_limit"},
	"header": {"headers"}, "customheaders": {"headers"}, "httpheaders": {"headers"}, "requestheaders": {"headers"}, "extraheaders": {"headers"},
	"batchsize": {"batch"}, "maxbatchsize": {"batch"}, "batching": {"batch"},
	"timezone": {"daily_zone"}, "subaccounts": {"include_subaccounts"},
	"from": {"since"}, "start": {"since"}, "after": {"since"}, "starttime": {"since"}, "begin": {"since"},
	"ids": {"event_ids"}, "id": {"event_ids"}, "eventid": {"event_ids"}, "messageids": {"event_ids"},
	"overlap": {"overlap_seconds"}, "grace": {"overlap_seconds"}, "ttl": {"overlap_seconds"}, "expiresin": {"overlap_seconds"},
}

// without are fields of other APIs, with the place where ours has the same.
var without = map[string]string{
	"secret":        "walhook generates the signing secret: GET …/webhooks/{id}/secret",
	"signingsecret": "walhook generates the signing secret: GET …/webhooks/{id}/secret",
}

// unknownField returns the warning about an unknown field, with a suggestion.
func unknownField(name string, schema *huma.Schema) string {
	text := fmt.Sprintf("unknown field %s is ignored", printable(name))
	if instead := without[letters(name)]; instead != "" {
		return text + ": " + instead
	}
	if likely := meant(name, schema); len(likely) > 0 {
		text += ": did you mean " + strings.Join(likely, " or ") + "?"
	}
	return text
}

// meant returns the fields of a schema that an unknown name may stand for, the most
// likely first.
func meant(name string, schema *huma.Schema) (fields []string) {
	for _, field := range synonyms[letters(name)] {
		if schema.Properties[field] != nil {
			fields = append(fields, field)
		}
	}
	if len(fields) > 0 {
		return fields
	}
	best, least := "", 3 // an edit distance below 3 is a suggestion
	for _, known := range slices.Sorted(maps.Keys(schema.Properties)) {
		n := distance(name, known, least)
		if letters(name) == letters(known) {
			n = 0 // customData, Custom-Data
		}
		if n < least {
			best, least = known, n
		}
	}
	if best == "" {
		return nil
	}
	return []string{best}
}

// meantFor returns which of the sent unknown names may stand for a missing field.
func meantFor(field string, sent map[string]json.RawMessage, schema *huma.Schema) string {
	for _, name := range slices.Sorted(maps.Keys(sent)) {
		if schema.Properties[name] == nil && slices.Contains(meant(name, schema), field) {
			return fmt.Sprintf(" (sent as %s?)", printable(name))
		}
	}
	return ""
}

// letters returns the letters of a name in lower case, for a comparison.
func letters(name string) string {
	if len(name) > 64 {
		return ""
	}
	return strings.Map(func(c rune) rune {
		if unicode.IsLetter(c) || unicode.IsDigit(c) {
			return unicode.ToLower(c)
		}
		return -1
	}, name)
}

// distance returns the edit distance between a and b, up to limit.
func distance(a, b string, limit int) int {
	if len(a) > 64 || len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], limit)
}

// printable shortens a name from outside for an answer that quotes it.
func printable(name string) string {
	if len(name) > 64 {
		name = strings.ToValidUTF8(name[:64], "") + "…"
	}
	return fmt.Sprintf("%q", name)
}
