package seal

import (
	"bytes"
	"strings"
	"testing"
)

func sealer(t *testing.T, fill byte) Sealer {
	t.Helper()
	s, err := New(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var own = Holder{Account: "7", Webhook: AccountWebhook}

func TestSealer_ASecretOpensForItsEndpointAlone(t *testing.T) {
	t.Parallel()
	s := sealer(t, 1)
	stored := s.Seal("whsec_b25l", own)
	if !IsBound(stored) || strings.Contains(stored, "whsec_") {
		t.Errorf("stored as %s", stored)
	}
	for of, opens := range map[Holder]bool{own: true, {"7", "ended-12"}: true, {"8", AccountWebhook}: false, {"7", "0123456789abcdef0123456789abcdef"}: false} {
		if got, err := s.Open(stored, of, true); (err == nil) != opens || opens && got != "whsec_b25l" {
			t.Errorf("for %v: %q, %v", of, got, err)
		}
	}
	for name, other := range map[string]Sealer{"another key": sealer(t, 2), "no key": {}} {
		if _, err := other.Open(stored, own, false); err == nil || !strings.Contains(err.Error(), "--secret-key") || strings.Contains(err.Error(), "whsec_") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSealer_InClearIsReadUntilAllIsSealed(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]Sealer{"a key": sealer(t, 1), "no key": {}} {
		if got, err := s.Open("whsec_b25l", own, false); err != nil || got != "whsec_b25l" {
			t.Errorf("%s, before: %q, %v", name, got, err)
		}
		if _, err := s.Open("whsec_b25l", own, true); err == nil {
			t.Errorf("%s: a secret in clear is taken after reseal", name)
		}
		if got, err := s.OpenURL("https://u:p@h.example/", own, false); err != nil || got != "https://u:p@h.example/" {
			t.Errorf("%s, before: %q, %v", name, got, err)
		}
		if _, err := s.OpenURL("https://u:p@h.example/", own, true); err == nil {
			t.Errorf("%s: a password in clear is taken after reseal", name)
		}
		if got, err := s.OpenURL("https://h.example/", own, true); err != nil || got != "https://h.example/" {
			t.Errorf("%s: a URL without one is %q, %v", name, got, err)
		}
	}
	if got := (Sealer{}).Seal("whsec_b25l", own); got != "whsec_b25l" {
		t.Errorf("without a key it is stored as %s", got)
	}
}

func TestSealer_APasswordOpensForItsHostAlone(t *testing.T) {
	t.Parallel()
	s := sealer(t, 1)
	for _, url := range []string{"https://u:hunter2@h.example/a?b=c", "HTTPS://u:hunter2@h.example", "https://u:hunter2 %zz@x/", "u:hunter2@h.example", "https://h.example/?q=u:hunter2@x"} {
		stored := s.SealURL(url, own)
		if strings.Contains(url, "://u") && strings.Contains(stored, "hunter2") {
			t.Errorf("%s is stored as %s", url, stored)
		}
		if again := s.SealURL(url, own); again != stored {
			t.Errorf("%s looks another way the second time", url)
		}
		if got, err := s.OpenURL(stored, own, true); err != nil || got != url {
			t.Errorf("%s is read as %q, %v", url, got, err)
		}
	}
	stored := s.SealURL("https://u:hunter2@h.example/a", own)
	for name, other := range map[string]string{
		"another host": strings.Replace(stored, "h.example", "evil.example", 1), "another path": stored + "b", "another scheme": strings.Replace(stored, "https", "http", 1), "shortened": strings.Replace(stored, sealedUser, sealedUser+"A", 1),
	} {
		if got, err := s.OpenURL(other, own, false); err == nil {
			t.Errorf("%s: it is read as %s", name, got)
		}
	}
	if _, err := s.OpenURL(stored, Holder{"8", AccountWebhook}, false); err == nil {
		t.Error("it is read for another account")
	}
}

func TestSealer_ResealsWhatTheKeyBeforeOrNoneStored(t *testing.T) {
	t.Parallel()
	before, now := sealer(t, 1), sealer(t, 2)
	for name, stored := range map[string]string{"in clear": "whsec_b25l", "the key before": before.Seal("whsec_b25l", own)} {
		text, changed, err := now.Reseal(before, stored, own, false)
		if got, bad := now.Open(text, own, true); err != nil || bad != nil || !changed || got != "whsec_b25l" {
			t.Errorf("%s: %q, changed %t, %v %v", name, got, changed, err, bad)
		}
		if again, changed, err := now.Reseal(before, text, own, true); err != nil || changed || again != text {
			t.Errorf("%s, once more: changed %t, %v", name, changed, err)
		}
	}
	if _, _, err := now.Reseal(Sealer{}, before.Seal("whsec_b25l", own), own, false); err == nil {
		t.Error("without the key before it is sealed anew")
	}
	columns := []string{"", "https://u:p@h.example/", "x"}
	for name, stored := range map[string][]string{"in clear": columns, "the key before": before.SealColumns("7", columns)} {
		sealed, changed, err := now.ResealColumns(before, "7", stored)
		if err != nil || !changed || strings.Contains(strings.Join(sealed, " "), "u:p@") {
			t.Fatalf("%s: %q, changed %t, %v", name, sealed, changed, err)
		}
		if got, err := now.OpenColumns("7", sealed); err != nil || strings.Join(got, "|") != strings.Join(columns, "|") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if _, err := now.OpenColumns("8", sealed); err == nil {
			t.Errorf("%s: another account's columns are read", name)
		}
	}
}

func TestSealer_AnAnswerNeedsTheCallersProofAndTheKey(t *testing.T) {
	t.Parallel()
	s := sealer(t, 1)
	proof := [32]byte{1}
	aead, err := s.Answers(proof, "k")
	if err != nil {
		t.Fatal(err)
	}
	sealed := aead.Seal(nil, nil, []byte("answer"), nil)
	for name, c := range map[string]struct {
		s     Sealer
		proof [32]byte
		key   string
		opens bool
	}{
		"the caller": {s, proof, "k", true}, "another token": {s, [32]byte{2}, "k", false},
		"another key": {s, proof, "l", false}, "another secret key": {sealer(t, 2), proof, "k", false},
	} {
		other, err := c.s.Answers(c.proof, c.key)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := other.Open(nil, nil, sealed, nil); (err == nil) != c.opens || c.opens && string(got) != "answer" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestSecret_IsThatOfStandardWebhooks(t *testing.T) {
	t.Parallel()
	if key, err := SecretKey(NewSecret()); err != nil || len(key) != 32 {
		t.Errorf("a key of %d bytes, %v", len(key), err)
	}
	for _, bad := range []string{"", "whsec_", "whsec_!!", "b25l", "WHSEC_b25l"} {
		if _, err := SecretKey(bad); err == nil || strings.Contains(err.Error(), "b25l") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What is taken for a URL without user information unparsed is one when it is parsed.
func TestSealer_KnowsOrdinaryURLs(t *testing.T) {
	for text, ordinary := range map[string]bool{
		"https://example.com/hooks/7": true, "http://10.0.0.1": true, "https://a-b.example/x_y.php": true,
		"": false, "https:///x": false, "https://u:p@h.example/": false, "https://u@h.example": false, "ftp://h.example/": false,
		"https://h.example:8443/": false, "https://h.example/?a=b": false, "https://h.example/ü": false, "https://h.example/a@b": false,
		"https://[::1]/": false, "https://h.example#x": false, `https://h.example\@x/`: false, "https://sealed.v2.x@h.example/": false,
	} {
		if got := isOrdinaryURL(text); got != ordinary {
			t.Errorf("%q: %v", text, got)
		}
		if _, has := splitURL(text); ordinary && has {
			t.Errorf("%q has user information", text)
		}
	}
}
