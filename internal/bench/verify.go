package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/internal/pgsession"
)

// didData is the published JSON of a did, which PostgreSQL writes.
const didData = `SELECT row_to_json(d)::text FROM (SELECT id, user_id, call_flow_id, channel_group_id, voicemail_inbox_id,
	number, number_type, state, ratecenter, sms_enabled, xmpp_enabled, inbound_cnam FROM dids WHERE id = $1) d`

// tally fetches the receivers' counts and checks them: all records arrived, none was
// wrong, and the samples have the right bytes and signatures.
func (w *world) tally(ctx context.Context, want int) (Tally, error) {
	report, err := w.b.receivers(ctx, receiveOrder{Report: true})
	if err != nil {
		return Tally{}, err
	}
	t := report.Tally
	t.First, t.Last, t.Expected = report.First, report.Last, want
	if t.Wrong > 0 {
		return t, fmt.Errorf("%d deliveries were wrong; the first: %s", t.Wrong, t.Fault)
	}
	if t.Delivered != want {
		return t, fmt.Errorf("%d webhook-ids were delivered, want %d", t.Delivered, want)
	}
	if len(report.Samples) == 0 {
		return t, nil
	}
	outbox, err := pgsession.Connect(ctx, w.outbox)
	if err != nil {
		return t, err
	}
	defer outbox.Close(context.WithoutCancel(ctx))
	for _, s := range report.Samples {
		if err := w.verify(ctx, outbox, s); err != nil {
			return t, fmt.Errorf("record %d: %w", s.Record, err)
		}
		t.Verified++
	}
	return t, nil
}

// webhook is the id of an account's endpoint, by its number from 0.
func (w *world) webhook(number int64) string {
	if w.onlyWebhook != "" {
		return w.onlyWebhook
	}
	return webhookID(number)
}

const secretOf = `SELECT secret FROM walhook.endpoint WHERE account = $1 AND webhook = $2`

func (w *world) verify(ctx context.Context, outbox *pgx.Conn, s sample) error {
	want, err := w.body(ctx, s.Record)
	if err != nil {
		return err
	}
	if !bytes.Equal(s.Body, want) {
		return fmt.Errorf("the body is %s, want %s", s.Body, want)
	}
	var secret string
	if err := outbox.QueryRow(ctx, secretOf, s.Account, w.webhook(s.Copy)).Scan(&secret); err != nil {
		return err
	}
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return err
	}
	header := http.Header{}
	header.Set(standardwebhooks.HeaderWebhookID, s.ID)
	header.Set(standardwebhooks.HeaderWebhookTimestamp, s.Timestamp)
	header.Set(standardwebhooks.HeaderWebhookSignature, s.Signature)
	signed := s.Body
	if s.Array != nil {
		signed = s.Array
	}
	return webhook.VerifyIgnoringTimestamp(signed, header)
}

// body returns the envelope of a record's insert, as PostgreSQL writes it.
func (w *world) body(ctx context.Context, record int64) ([]byte, error) {
	var data string
	if err := w.conn.QueryRow(ctx, didData, record).Scan(&data); err != nil {
		return nil, err
	}
	var quoted bytes.Buffer
	encoder := json.NewEncoder(&quoted)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(data); err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, `{"type":"insert","schema":"dids","data":%s}`, bytes.TrimSpace(quoted.Bytes())), nil
}

// rest returns the part of a body after the account, which all bodies share.
func (w *world) rest(ctx context.Context, record int64) (string, error) {
	body, err := w.body(ctx, record)
	if err != nil {
		return "", err
	}
	_, account, ok := parseBody(body)
	_, rest, found := strings.Cut(string(body), bodyOwner+account)
	if !ok || !found {
		return "", fmt.Errorf("record %s has an unknown body: %s", strconv.FormatInt(record, 10), body)
	}
	return rest, nil
}
