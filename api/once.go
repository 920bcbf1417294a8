package api

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"walhook/outbox/admin"
)

const (
	// idempotencyHeader is the header of draft-ietf-httpapi-idempotency-key-header.
	idempotencyHeader = "Idempotency-Key"
	// replayedHeader marks the repetition of an earlier answer.
	replayedHeader = "Idempotent-Replayed"

	maxIdempotencyKey = 255
)

// idempotent marks a call that creates something and honours an Idempotency-Key.
func idempotent(op huma.Operation) huma.Operation {
	op.Parameters = append(op.Parameters, &huma.Param{
		Name: idempotencyHeader, In: "header",
		Description: "identifies this request: sent again with the same key within 24 hours it gets the same answer and creates nothing. " +
			"Use a random value, such as a UUID. The same key with another request is a 422, and a 409 while the first one runs.",
		Schema:  &huma.Schema{Type: huma.TypeString, MinLength: new(1), MaxLength: new(maxIdempotencyKey)},
		Example: "8e03978e-40d5-43e8-bc93-6894a57f9324",
	})
	return marked(op, idempotencyHeader, true)
}

// creation is a request that creates something once. write stores its answer.
type creation[T any] struct {
	once  admin.Once
	write func(*answer[T]) ([]byte, error)
}

// makeOnce creates something, unless the same request was answered before; then it
// repeats that answer. what names the call, and body is the request's.
func makeOnce[T any](ctx context.Context, s *subscriptions, what string, body []byte, create func(creation[T]) (*answer[T], error)) (*answer[T], error) {
	c := callOf(ctx)
	key, err := idempotencyKey(c.keys)
	if err != nil {
		return nil, err
	}
	asked := creation[T]{admin.Once{Key: key, Proof: c.proof, Request: append([]byte(what+"\n"), meaning(body)...)},
		func(a *answer[T]) ([]byte, error) { return encode(a.Body.withRequestID(c.id)) }}
	var made *answer[T]
	// Before any check: a repeated request may not pass the checks any more.
	if err = s.cfg.Admin.Answered(ctx, c.caller(), c.account, asked.once); err == nil {
		made, err = create(asked)
	}
	before, answered := errors.AsType[*admin.AnsweredError](err)
	if !answered {
		return made, err
	}
	made = &answer[T]{}
	if err := json.Unmarshal(before.Answer, &made.Body); err != nil {
		return nil, fmt.Errorf("read a stored answer: %w", err)
	}
	c.header.Set(replayedHeader, "true")
	s.log.Info("request answered from a stored answer", zap.String("request_id", c.id), zap.String("who", c.who), zap.String("account", c.account),
		zap.String("call", what), zap.String("first_request_id", made.Body.RequestID))
	return made, nil
}

// idempotencyKey reads the header: a string of RFC 8941 (section 3.3.3), or the same
// without quotes, as most clients send it. It returns "" without a header.
func idempotencyKey(sent []string) (string, error) {
	wrong := func(message string) (string, error) { return "", badRequest(idempotencyHeader, message) }
	if len(sent) == 0 {
		return "", nil
	}
	if len(sent) > 1 {
		return wrong("is set more than once")
	}
	text := strings.Trim(sent[0], " \t")
	if inner, quoted := strings.CutPrefix(text, `"`); quoted {
		var ended bool
		if text, ended = unquoted(inner); !ended {
			return wrong(`begins with a quote and is not a quoted string such as "8e03978e-40d5-43e8-bc93-6894a57f9324"`)
		}
	} else if strings.ContainsAny(text, `",;\ `) {
		return wrong("contains a blank, a comma, a semicolon, a backslash or a quote: put it in quotes")
	}
	switch {
	case text == "":
		return wrong("is empty")
	case len(text) > maxIdempotencyKey:
		return wrong(fmt.Sprintf("is longer than %d characters", maxIdempotencyKey))
	case strings.ContainsFunc(text, func(c rune) bool { return c < 0x20 || c > 0x7e }):
		return wrong("contains characters that are not printable ASCII")
	}
	return text, nil
}

// unquoted returns the text before the closing quote, which must be at the end.
func unquoted(inner string) (text string, ended bool) {
	var b strings.Builder
	for i := 0; i < len(inner); i++ {
		switch c := inner[i]; {
		case c == '"':
			return b.String(), i == len(inner)-1
		case c == '\\' && i+1 < len(inner) && (inner[i+1] == '"' || inner[i+1] == '\\'):
			i++
			b.WriteByte(inner[i])
		case c == '\\':
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// meaning returns a JSON body without white space and with its members sorted, since
// neither matters. It returns any other body unchanged.
func meaning(body []byte) []byte {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil || decoder.More() {
		return body
	}
	text, err := encode(value)
	if err != nil {
		return body
	}
	return text
}

// encode writes JSON in the form of answers.
func encode(value any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return b.Bytes(), err
}

// proofOf derives a proof from a token's secret. It differs from the stored hash.
func proofOf(secret string) (proof [sha256.Size]byte) {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("walhook idempotency"))
	return [sha256.Size]byte(mac.Sum(nil))
}

// onceFailure returns the answer to an Idempotency-Key that cannot be used now; nil for
// other errors.
func onceFailure(ctx context.Context, err error) *failure {
	switch {
	case errors.Is(err, admin.ErrOnceRunning):
		f := fail(http.StatusConflict, admin.ErrOnceRunning.Error()+": try again in a moment, with the same key")
		f.after = onceRunningPause
		return f
	case errors.Is(err, admin.ErrOnceDiffers):
		callOf(ctx).unprocessable = true
		return fail(http.StatusUnprocessableEntity, admin.ErrOnceDiffers.Error())
	case errors.Is(err, admin.ErrOnceSealed):
		return fail(http.StatusConflict, admin.ErrOnceSealed.Error())
	case errors.Is(err, admin.ErrOnceFull):
		return tooMany(onceFullPause, admin.ErrOnceFull.Error())
	}
	return nil
}
