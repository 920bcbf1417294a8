package main

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// databaseURL is a database URL in its parts. init connects as the role of one URL, and
// writes another one, with walhook's role, into the configuration file.
type databaseURL struct {
	user       string
	password   string
	passworded bool // the URL itself has the password, not the environment or a passfile
	hosts      []host
	database   string
	parameters url.Values // without those of the other fields
}

type host struct {
	name string // or the directory of a socket
	port uint16
}

// parseDatabaseURL reads a URL, or libpq's key=value form, that checkURL accepts.
func parseDatabaseURL(text string) (databaseURL, error) {
	cfg, err := pgconn.ParseConfig(text)
	if err != nil { // it may quote a password
		return databaseURL{}, fmt.Errorf("not a PostgreSQL URL: %s", wantURL)
	}
	a := databaseURL{user: cfg.User, database: cmp.Or(cfg.Database, cfg.User), hosts: []host{{cfg.Host, cfg.Port}}, parameters: parametersOf(text)}
	for _, one := range cfg.Fallbacks { // one more of each host where TLS is optional
		if next := (host{one.Host, one.Port}); !slices.Contains(a.hosts, next) {
			a.hosts = append(a.hosts, next)
		}
	}
	if parsed, err := url.Parse(text); err == nil && parsed.User != nil {
		_, a.passworded = parsed.User.Password()
	}
	if a.passworded = a.passworded || a.parameters.Get("password") != ""; a.passworded {
		a.password = cfg.Password
	}
	for _, name := range []string{"user", "password", "passfile", "host", "hostaddr", "port", "dbname", "database"} {
		a.parameters.Del(name)
	}
	// The file is read where these variables of this shell may not be set.
	for _, name := range []string{"sslmode", "sslrootcert", "sslcert", "sslkey"} {
		if value := os.Getenv("PG" + strings.ToUpper(name)); value != "" && !a.parameters.Has(name) {
			a.parameters.Set(name, value)
		}
	}
	return a, nil
}

func parametersOf(text string) url.Values {
	if _, rest, isURL := strings.Cut(text, "://"); isURL {
		_, query, _ := strings.Cut(rest, "?")
		values, _ := url.ParseQuery(query) // pgconn has parsed it
		return values
	}
	values := url.Values{}
	for _, one := range assignment.FindAllStringSubmatch(text, -1) {
		value := one[2]
		if quoted, ok := strings.CutPrefix(value, "'"); ok {
			value = strings.NewReplacer(`\\`, `\`, `\'`, `'`).Replace(strings.TrimSuffix(quoted, "'"))
		}
		values.Set(one[1], value)
	}
	return values
}

// as returns the address with another role, without a password.
func (a databaseURL) as(user string) databaseURL {
	a.user, a.password, a.passworded = user, "", false
	return a
}

// in returns the address with another database.
func (a databaseURL) in(database string) databaseURL {
	a.database = database
	return a
}

// with returns the address with a password; "" for none.
func (a databaseURL) with(password string) databaseURL {
	a.password, a.passworded = password, password != ""
	return a
}

// String returns the URL, with the password.
func (a databaseURL) String() string {
	u := url.URL{Scheme: "postgres", Path: "/" + a.database}
	if u.User = url.User(a.user); a.passworded {
		u.User = url.UserPassword(a.user, a.password)
	}
	query := url.Values{}
	maps.Copy(query, a.parameters)
	var names, ports, both []string
	socket := false
	for _, h := range a.hosts {
		port := strconv.Itoa(int(h.port))
		names, ports, both = append(names, h.name), append(ports, port), append(both, net.JoinHostPort(h.name, port))
		socket = socket || strings.HasPrefix(h.name, "/")
	}
	if socket {
		query.Set("host", strings.Join(names, ","))
		query.Set("port", strings.Join(ports, ","))
	} else {
		u.Host = strings.Join(both, ",")
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// shown returns the URL without the password and without parameters, which may be secret.
func (a databaseURL) shown() string {
	a.password, a.passworded, a.parameters = "", false, nil
	return a.String()
}

// sameServer reports whether two addresses name the same hosts.
func (a databaseURL) sameServer(b databaseURL) bool { return slices.Equal(a.hosts, b.hosts) }

// psql returns the command that runs a file on the server.
func (a databaseURL) psql(database, file string) string {
	if !plainName.MatchString(database) { // psql takes some names for a connection string
		database = "dbname=" + conninfoValue(database)
	}
	return fmt.Sprintf("psql -h %s -p %d -U postgres -d %s -f %s", shellWord(a.hosts[0].name), a.hosts[0].port, shellWord(database), shellWord(file))
}

// conninfoValue quotes a value of libpq's key=value form.
func conninfoValue(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}

// shellWord quotes a word for a shell.
func shellWord(word string) string {
	plain := word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:@%+=,", r))
	})
	if plain {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
