package deliver

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"walhook/outbox/address"
)

// NATSCredentials names the file with which walhook signs in at servers of NATS. It is read
// for each connection.
type NATSCredentials struct {
	Host string // of a server; "" for all that no other one names
	// File holds what 'nsc generate creds' makes, the seed of a user's nkey, a line
	// user:password, or a token.
	File string
}

// credentialsFor returns the file for servers; "" for none.
func credentialsFor(all []NATSCredentials, servers string) string {
	list, err := address.Servers(servers)
	if err != nil {
		return ""
	}
	file := ""
	for _, one := range all {
		if one.Host == "" {
			file = one.File
		}
	}
	for _, server := range list {
		for _, one := range all {
			if one.Host != "" && address.NormalHost(one.Host) == server.Hostname() {
				return one.File
			}
		}
	}
	return file
}

// errCredentials says that a file of credentials cannot be used. It shows none of it.
var errCredentials = errors.New("the file of --nats-credentials cannot be used")

// natsLogin is what a file of credentials says at one moment. The zero value is no
// credentials.
type natsLogin struct {
	named   bool
	option  nats.Option
	sum     [sha256.Size]byte // of the file
	expires time.Time         // of a user's JWT; zero for never
}

// readNATSLogin reads a file; "" is none.
func readNATSLogin(file string) (login natsLogin, err error) {
	if file == "" {
		return login, nil
	}
	texts, err := readFiles([]string{file})
	if err != nil {
		return login, fmt.Errorf("%w: %w", errCredentials, err)
	}
	login = natsLogin{named: true, sum: sha256.Sum256(texts[0])}
	switch text := string(bytes.TrimSpace(texts[0])); {
	case strings.Contains(text, "BEGIN NATS USER JWT"):
		if login.expires, err = expiryOf(texts[0]); err == nil {
			login.option = nats.UserCredentialBytes(texts[0])
		}
	case strings.Contains(text, "BEGIN USER NKEY SEED"), isSeed(text):
		var user string
		if user, err = userOf(texts[0]); err == nil {
			login.option = nats.Nkey(user, func(nonce []byte) ([]byte, error) { return sign(texts[0], nonce) })
		}
	case text == "" || strings.ContainsAny(text, "\r\n"):
		err = fmt.Errorf("%w: want credentials as nsc makes them, a seed, a line user:password, or a token", errCredentials)
	case strings.Contains(text, ":"):
		user, password, _ := strings.Cut(text, ":")
		login.option = nats.UserInfo(user, password)
	default:
		login.option = nats.Token(text)
	}
	return login, err
}

// isSeed says that a text is meant as a seed, of whatever kind.
func isSeed(text string) bool {
	_, err := nkeys.FromSeed([]byte(text))
	return err == nil || strings.HasPrefix(text, "SU") && len(text) == 58
}

// userOf is the public key of a seed.
func userOf(seed []byte) (string, error) {
	pair, err := nkeys.ParseDecoratedNKey(seed)
	if err == nil {
		defer pair.Wipe()
		if user, err := pair.PublicKey(); err == nil && nkeys.IsValidPublicUserKey(user) {
			return user, nil
		}
	}
	return "", fmt.Errorf("%w: it holds no seed of a user's nkey", errCredentials) // err may show the file
}

func sign(seed, nonce []byte) ([]byte, error) {
	pair, err := nkeys.ParseDecoratedNKey(seed)
	if err != nil {
		return nil, errCredentials
	}
	defer pair.Wipe()
	return pair.Sign(nonce)
}

// expiryOf is when the user's JWT of a file of credentials expires; zero for never.
func expiryOf(creds []byte) (at time.Time, err error) {
	if _, err := userOf(creds); err != nil {
		return at, err
	}
	wrong := fmt.Errorf("%w: it holds no JWT of a user", errCredentials)
	token, err := nkeys.ParseDecoratedJWT(creds)
	parts := strings.Split(token, ".")
	if err != nil || len(parts) != 3 {
		return at, wrong
	}
	var claims struct {
		Expires int64 `json:"exp"` // seconds (RFC 7519, 4.1.4)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return at, wrong
	}
	if claims.Expires > 0 {
		at = time.Unix(claims.Expires, 0)
	}
	return at, nil
}

// explain says what to do about a refusal.
func (l *natsLogin) explain(err error, now time.Time) error {
	switch {
	case classifyNATSConnection(err) != failNATSRefused:
		return err
	case !l.named:
		return fmt.Errorf("no file of --nats-credentials is for this server (%w)", err)
	case !l.expires.IsZero() && l.expires.Before(now):
		return fmt.Errorf("the credentials of the file expired on %s: put new ones in its place (%w)", l.expires.UTC().Format(time.RFC3339), err)
	}
	return err
}

// Check says what is wrong with the file, for doctor and the start of a sender.
func (c *NATSCredentials) Check() error {
	_, err := readNATSLogin(c.File)
	return err
}
