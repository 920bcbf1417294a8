package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// MaxEventPayload bounds the payload of an emitted event, in bytes.
const MaxEventPayload = 256 << 10

// maxEventMessage bounds a message: a payload and the members around it.
const maxEventMessage = MaxEventPayload + 16<<10

// gregorianOffset is the Unix epoch in seconds since the year 0.
const gregorianOffset = 62167219200

// The errors of emitted events, besides malformed ones.
var (
	ErrEventTooLarge = fmt.Errorf("payload of more than %d bytes", MaxEventPayload)
	ErrUnknownHook   = errors.New("hook is not in the catalog")
)

// Emitted is an event as the carrier's software emitted it.
type Emitted struct {
	Account  string
	Hook     string
	Payload  []schemas.Member
	Internal bool // a leg inside the phone system
	// At is the time of the event; zero stands for the time of its commit.
	At time.Time
}

// ParseEventMessage reads the content of a logical message: a JSON object with
// account_id (text or number), hook, payload (an object) and, optional,
// internal. An error says what is wrong without quoting the content.
func ParseEventMessage(content []byte) (Emitted, error) {
	if len(content) > maxEventMessage {
		return Emitted{}, ErrEventTooLarge
	}
	if !utf8.Valid(content) {
		return Emitted{}, errors.New("not valid UTF-8")
	}
	var message struct {
		Account  json.RawMessage `json:"account_id"`
		Hook     *string         `json:"hook"`
		Payload  json.RawMessage `json:"payload"`
		Internal *bool           `json:"internal"`
	}
	if err := json.Unmarshal(content, &message); err != nil {
		if wrongType, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrongType.Field != "" {
			return Emitted{}, fmt.Errorf("%s is a JSON %s", wrongType.Field, wrongType.Value)
		}
		return Emitted{}, schemas.ErrNotObject
	}
	account, err := accountID(message.Account)
	if err != nil {
		return Emitted{}, fmt.Errorf("account_id %w", err)
	}
	e := Emitted{Account: account, Hook: deref(message.Hook), Internal: message.Internal != nil && *message.Internal}
	return e, e.take(message.Payload)
}

// accountID reads an id that is a text or a number; "" for none.
func accountID(raw json.RawMessage) (string, error) {
	raw = bytes.TrimSpace(raw)
	switch {
	case len(raw) == 0 || bytes.Equal(raw, []byte("null")):
		return "", nil
	case raw[0] == '"':
		var id string
		if err := json.Unmarshal(raw, &id); err != nil {
			return "", errors.New("is not a JSON string")
		}
		return id, nil
	case raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9':
		return string(raw), nil
	}
	return "", errors.New("is neither text nor number")
}

// take checks an event and its payload.
func (e *Emitted) take(payload []byte) error {
	switch {
	case e.Account == "":
		return errors.New("account_id is missing")
	case len(e.Account) > schemas.MaxAccountBytes:
		return fmt.Errorf("account_id has %d bytes, want at most %d", len(e.Account), schemas.MaxAccountBytes)
	case !isSchemaName(e.Hook):
		return errors.New("hook is missing or is not a name of letters, digits, _ . and -")
	case len(payload) > MaxEventPayload:
		return ErrEventTooLarge
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, payload); err != nil {
		return errors.New("payload is missing or is not JSON")
	}
	var err error
	if e.Payload, err = schemas.ParseObject(compact.Bytes()); err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	for _, m := range e.Payload {
		if m.Name == "" || len(m.Name) > maxMemberName {
			return fmt.Errorf("payload: a member name has %d bytes, want 1 to %d", len(m.Name), maxMemberName)
		}
	}
	return nil
}

const maxMemberName = 1000

// EventPlan holds the columns of the table of events; -1 for a missing one.
type EventPlan struct {
	account, hook, payload, internal, createdAt int
}

// bindEvents returns nil for a table of that name that lacks the columns of events.
func bindEvents(p *Plan) *EventPlan {
	e := &EventPlan{
		account:   p.Relation.Column("account_id"),
		hook:      p.Relation.Column("hook"),
		payload:   p.Relation.Column("payload"),
		internal:  p.Relation.Column("internal"),
		createdAt: p.Relation.Column("created_at"),
	}
	if e.hook < 0 || e.payload < 0 {
		return nil
	}
	return e
}

// EmittedOf reads a row of the table of events.
func (p *Plan) EmittedOf(row schemas.Tuple) (Emitted, error) {
	var e Emitted
	c := p.Events
	e.Account, _ = p.accountText(row, c.account)
	e.Hook, _ = textOfColumn(row, c.hook)
	internal, _ := textOfColumn(row, c.internal)
	e.Internal = internal == "t" || internal == "true"
	if text, ok := textOfColumn(row, c.createdAt); ok {
		e.At = parseTimestamp(text)
	}
	var payload []byte
	if c.payload < len(row) && row[c.payload].State == schemas.Text {
		payload = row[c.payload].Text
	}
	return e, e.take(payload)
}

// parseTimestamp reads PostgreSQL's ISO form of a time stamp, in UTC. It returns the
// zero time for one that Go's calendar lacks, such as infinity or a year BC.
func parseTimestamp(text string) time.Time {
	for _, layout := range []string{"2006-01-02 15:04:05.999999999-07", "2006-01-02 15:04:05.999999999"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at
		}
	}
	return time.Time{}
}

// HookEvent is an emitted event with its definition in the catalog.
type HookEvent struct {
	Hook *Hook
	// Type and Action are what webhooks can filter by: the payload's members of these
	// names. Without the member, Type is the hook's name.
	Type, Action string
	// Targets are the objects of the event, as pairs of kind and id.
	Targets [][2]string
	// Order is the value of the hook's Order member; "" for none.
	Order string

	fields  []HookField
	emitted Emitted
}

// HookEvent finds the definition of an emitted event. It returns [ErrUnknownHook]
// when the catalog has none.
func (c *Catalog) HookEvent(e Emitted) (HookEvent, error) {
	h := c.byHook[e.Hook]
	typ := textOf(e.Payload, "type")
	if special := c.byHook[typ]; special != nil && slices.Contains(special.Groups, e.Hook) {
		h = special
	}
	if h == nil {
		return HookEvent{}, ErrUnknownHook
	}
	event := HookEvent{Hook: h, Type: typ, Action: textOf(e.Payload, "action"), fields: h.Fields, emitted: e}
	if event.Type == "" || len(h.Groups) > 0 {
		event.Type = h.Name
	}
	targets := h.targets
	if v := h.Variants; v != nil {
		value, found := textOf(e.Payload, v.Key), false
		for i := range v.Of {
			if v.Of[i].Value == value {
				event.fields, targets, found = v.Of[i].Fields, v.Of[i].Targets, true
			}
		}
		if !found {
			return HookEvent{}, fmt.Errorf("payload: %s is none of %s", v.Key, v.values())
		}
	}
	for _, t := range targets {
		for _, key := range t.Keys {
			if id := textOf(e.Payload, key); id != "" {
				event.Targets = append(event.Targets, [2]string{t.Kind, id})
			}
		}
	}
	if h.Order != "" {
		event.Order = textOf(e.Payload, h.Order)
	}
	return event, nil
}

func (v *HookVariants) values() string {
	values := make([]string, len(v.Of))
	for i := range v.Of {
		values[i] = v.Of[i].Value
	}
	return strings.Join(values, ", ")
}

// textOf returns the text of a payload's member; "" when there is none or it is an
// object or a list.
func textOf(payload []schemas.Member, name string) string {
	for _, m := range payload {
		if m.Name == name && len(m.Value) > 0 && m.Value[0] != '{' && m.Value[0] != '[' {
			text, _ := m.Text()
			return string(text)
		}
	}
	return ""
}

// Body writes the body of the event, a JSON object. at is the time of the source's
// commit.
func (e *HookEvent) Body(at time.Time) []byte {
	if !e.emitted.At.IsZero() {
		at = e.emitted.At
	}
	members := make([]schemas.Member, 0, len(e.fields))
	for _, f := range e.fields {
		m := schemas.Member{Name: f.Name}
		switch f.Source {
		case FromPayload:
			m.Value = valueOf(e.emitted.Payload, f.Key)
		case FromHook:
			m.Value = pgjson.AppendString(nil, []byte(e.Hook.Name))
		case FromAccountID:
			m.Value = pgjson.AppendString(nil, []byte(e.emitted.Account))
		case FromGregorian:
			m.Value = strconv.AppendInt(nil, at.Unix()+gregorianOffset, 10)
		case FromValue:
			m.Value = f.Value.AppendJSON(nil)
		}
		if m.Value == nil && e.Hook.Empty {
			m.Value = json.RawMessage(`""`)
		}
		if m.Value != nil {
			members = append(members, m)
		}
	}
	if e.Hook.Extra {
		for _, m := range e.emitted.Payload {
			if !e.names(m.Name) {
				members = append(members, m)
			}
		}
	}
	return schemas.AppendObject(nil, members)
}

// names reports whether a field has this name or takes this member of the payload.
func (e *HookEvent) names(member string) bool {
	for _, f := range e.fields {
		if f.Name == member || f.Source == FromPayload && f.Key == member {
			return true
		}
	}
	return false
}

func valueOf(payload []schemas.Member, name string) json.RawMessage {
	for _, m := range payload {
		if m.Name == name {
			return m.Value
		}
	}
	return nil
}
