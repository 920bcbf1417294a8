package deliver

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	secretA = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	secretB = "whsec_c2Vjb25kLXNlY3JldC1vZi10aGUtdGVzdA=="
)

func TestSign_IsVerifiedByTheOfficialLibrary(t *testing.T) {
	body := []byte(`{"type":"update","schema":"dids","data":"{\"id\":42}"}`)
	at := time.Now()
	signer, err := newSigner([]string{secretA, secretB})
	if err != nil {
		t.Fatal(err)
	}
	signer.sign("evt_1_0", "1", []byte("what was signed before leaves no trace"))
	header := signer.sign("evt_1_1", strconv.FormatInt(at.Unix(), 10), body)
	if parts := strings.Split(header, " "); len(parts) != 2 {
		t.Fatalf("signature %q: want one per secret, separated by a space", header)
	}
	for _, secret := range []string{secretA, secretB} {
		official, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		headers := http.Header{}
		headers.Set("webhook-id", "evt_1_1")
		headers.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
		headers.Set("webhook-signature", header)
		if err := official.Verify(body, headers); err != nil {
			t.Errorf("verify: %v", err)
		}
		if err := official.Verify(append(body, ' '), headers); err == nil {
			t.Error("another body is verified too")
		}
	}
}

func TestSign_RefusesSecretsThatItCannotUseWithoutShowingThem(t *testing.T) {
	for name, secrets := range map[string][]string{
		"none":      nil,
		"no prefix": {"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
		"no base64": {"whsec_%%%"},
		"empty":     {"whsec_"},
		"second":    {secretA, "hunter2"},
	} {
		_, err := newSigner(secrets)
		if !errors.Is(err, errSecret) {
			t.Errorf("%s: error %v, want errSecret", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
}
