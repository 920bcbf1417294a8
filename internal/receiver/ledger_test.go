package receiver_test

import (
	"encoding/base64"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/internal/carrier"
	"walhook/internal/carrier/carriertest"
	"walhook/internal/pgtest"
	"walhook/internal/receiver"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// A sender that knows the ledger by heart satisfies the referee; one that
// forgets, invents or swaps does not.
func TestVerify_AcceptsExactlyWhatTheLedgerSays(t *testing.T) {
	t.Parallel()
	secret := "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	server, err := receiver.Start(receiver.Options{Secret: func(string) string { return secret }})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	const accounts = 4
	urlFor := func(i int) string { return server.URL(strconv.FormatInt(carrier.AccountID(i), 10)) }
	db := pgtest.Database(t)
	conn := db.Connect(t)
	if err := carrier.Create(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if err := carrier.Seed(t.Context(), conn, accounts, 1, urlFor); err != nil {
		t.Fatal(err)
	}
	activity, err := carrier.NewActivity(t.Context(), db.URL, carrier.Options{Accounts: accounts, Seed: 1, URLFor: urlFor, BulkRows: 20})
	if err != nil {
		t.Fatal(err)
	}
	defer activity.Close()
	// The tour shows every schema to every account, whatever the machine does meanwhile.
	carriertest.RunUntil(t, activity, 0, carriertest.Committed(300))
	expected, err := carrier.Read(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}

	sendLedger(t, conn, server, secret)
	deliveries := server.Deliveries()
	report := receiver.Verify(expected, deliveries, receiver.Terms{})
	if !report.OK() || report.Delivered != len(expected) || report.Duplicates > 0 {
		t.Fatalf("%+v\n%s", report.Counts, strings.Join(report.Faults, "\n"))
	}
	if len(report.Schemas) != len(carrier.Schemas())+1 || report.Latency["all"].Count != len(expected) {
		t.Errorf("schemas %v, latency %v", report.Schemas, report.Latency)
	}

	without := append([]receiver.Delivery{}, deliveries...)
	without[10].Status = 500
	if report := receiver.Verify(expected, without, receiver.Terms{}); report.Lost != 1 {
		t.Errorf("one forgotten: %+v", report.Counts)
	}
	forged := append([]receiver.Delivery{}, deliveries...)
	forged[10].Body[7] ^= 1
	if report := receiver.Verify(expected, forged, receiver.Terms{}); report.WrongBodies != 1 {
		t.Errorf("one forged: %+v", report.Counts)
	}
	backwards := make([]receiver.Delivery, 0, len(deliveries))
	for i := range deliveries {
		backwards = append(backwards, deliveries[len(deliveries)-1-i])
	}
	if report := receiver.Verify(expected, backwards, receiver.Terms{}); report.OrderViolations == 0 || report.Lost > 0 {
		t.Errorf("all backwards: %+v", report.Counts)
	}
}

// sendLedger delivers the ledger's bodies in their order.
func sendLedger(t *testing.T, conn *pgx.Conn, server *receiver.Server, secret string) {
	t.Helper()
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(t.Context(), `SELECT account, 'evt_' || seq, body FROM ledger.expected ORDER BY seq`)
	if err != nil {
		t.Fatal(err)
	}
	var account, id, body string
	_, err = pgx.ForEachRow(rows, []any{&account, &id, &body}, func() error {
		now := time.Now()
		signature, err := webhook.Sign(id, now, []byte(body))
		if err != nil {
			return err
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL(account), strings.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("webhook-id", id)
		r.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
		r.Header.Set("webhook-signature", signature)
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		return response.Body.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
}
