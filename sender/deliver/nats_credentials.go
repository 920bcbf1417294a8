package deliver

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

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

// natsLogin is how a connection signs in with a file.
func natsLogin(file string) (nats.Option, error) {
	text, err := readSecret(file)
	if err != nil {
		return nil, err
	}
	switch {
	case strings.Contains(text, "BEGIN NATS USER JWT"):
		return nats.UserCredentials(file), nil
	case strings.Contains(text, "BEGIN USER NKEY SEED"), strings.HasPrefix(text, "SU") && len(text) == 58:
		option, err := nats.NkeyOptionFromSeed(file)
		if err != nil {
			return nil, fmt.Errorf("%w: it is no seed of a user's nkey", errCredentials)
		}
		return option, nil
	case text == "" || strings.ContainsAny(text, "\r\n"):
		return nil, fmt.Errorf("%w: want credentials as nsc makes them, a seed, a line user:password, or a token", errCredentials)
	case strings.Contains(text, ":"):
		return nats.UserInfoHandler(func() (user, password string) {
			if now, err := readSecret(file); err == nil {
				text = now
			}
			user, password, _ = strings.Cut(text, ":")
			return user, password
		}), nil
	}
	return nats.TokenHandler(func() string {
		if now, err := readSecret(file); err == nil {
			text = now
		}
		return text
	}), nil
}

func readSecret(file string) (string, error) {
	texts, err := readFiles([]string{file})
	if err != nil {
		return "", fmt.Errorf("%w: %w", errCredentials, err)
	}
	return string(bytes.TrimSpace(texts[0])), nil
}

// Check says what is wrong with the file, for doctor and the start of a sender.
func (c *NATSCredentials) Check() error {
	_, err := natsLogin(c.File)
	return err
}
