package main

import (
	"strings"
	"testing"
)

// Another driver's URL is a usage error that shows the right form, and no
// password, wherever that stands.
func TestSettings_AnotherDriversURLIsAnsweredWithTheRightForm(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"jdbc:postgresql://db.example:5432/carrier?user=walhook&password=hunter2&ssl=true", "postgres://walhook:PASSWORD@db.example:5432/carrier"},
		{"jdbc:postgresql://a:5432,b:5433/carrier", "postgres://USER:PASSWORD@a:5432,b:5433/carrier"},
		{"JDBC:PostgreSQL://db/carrier", "postgres://USER:PASSWORD@db/carrier"},
		{"jdbc:postgresql:carrier", "want postgres://"},
		{"jdbc:pgbouncer://db/carrier", "postgres://USER:PASSWORD@db/carrier"},
		{"postgresql+psycopg://walhook:hunter2@db/carrier", "postgres://walhook:PASSWORD@db/carrier"},
		{"postgresql+asyncpg://walhook:hun@ter2@db/carrier", "want postgres://"},
		{"postgres+ssl://walhook:hunter2/x@db/carrier", "postgres://walhook:PASSWORD@db/carrier"},
		{"postgresql+psycopg://walhook:hunter2/a?b@d$b/c", "want postgres://"},
		{"pgsql:host=db;dbname=carrier;password=hunter2", "want postgres://"},
		{"pgsql://walhook:hunter2@[::1]:5432/carrier", "postgres://walhook:PASSWORD@[::1]:5432/carrier"},
	} {
		err := checkURL(&settings{}, "source", c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hun") || strings.Contains(err.Error(), "ter2") {
			t.Errorf("%s: %v, want %s", c.text, err, c.want)
		}
	}
	for _, text := range []string{"postgres://u:p@h/d", "postgresql://h1,h2/d", "host=h dbname=d", "postgres://[::1]:5432/d", "postgres:///d?host=/tmp", "service", "dbname=jdbc:x"} {
		if err := checkURL(&settings{}, "source", text); err != nil && text != "service" {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What is left of a password that is not percent-encoded is read as a host, a
// database or a parameter: none of it is shown.
func TestSettings_APasswordThatIsNotPercentEncodedIsAUsageErrorAndIsNotShown(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"postgres://wh:s3cr@tPART#x@127.0.0.1:26001/c", "postgres://wh:tPART@tPART@h/c", "postgresql://wh:a@tPART/b@h/c", "postgres://wh:5432/tPART@h/c",
		"postgres://wh:12?tPART@h/c", "postgres://wh:12?x=tPART@h/c", "postgres://wh:12/3?x=tPART@h/c", "postgres://wh:a@tPART?x=y@h/c",
		"postgres://wh:a@tPART#x/c", "postgres://wh:a@tPART x/c", "postgres://wh:a@tPART%40h/c", "postgres://wh:a@tPART%0Ah/c", "postgres://wh:a@h1,tPART#h2/c",
		"postgres:///c?host=tPART%23x", "host=tPART@h dbname=c", "POSTGRES://wh:s@tPART@h/c", "postgres://wh:a@/%00tPART/c",
	} {
		for _, setting := range []string{"--source", "--outbox"} {
			var s settings
			err := checkURL(&s, strings.TrimPrefix(setting, "--"), lowerScheme(text))
			if err == nil || strings.Contains(err.Error(), "tPART") || !strings.Contains(err.Error(), "special characters") {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
	for _, text := range []string{
		"postgres://wh:p%40%23%2F@db.example:5432/c", "postgres://wh:a#b@db/c", "POSTGRES://wh:p@db/c", "PostgreSQL://db/c", "postgres://u@[fe80::1]:5432,h_2,10.0.0.1/c",
		"postgres://b\u00fccher.example/c", "postgres://u@%2Fvar%2Frun%2Fpostgresql/c", "postgres://db/c?user=me@server&password=a@b",
	} {
		if err := checkURL(&settings{}, "source", lowerScheme(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// A parameter whose value is refused is named, and the password is not suspected.
func TestSettings_AParameterWithAWrongValueIsNamed(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"postgres://u:hunter2@h/d?sslmode=bogus":             "parameter sslmode: want disable",
		"host=h password='hunter2' sslmode=bogus":            "parameter sslmode: want disable",
		"postgres://u:hunter2@h/d?a=b&connect_timeout=hello": "parameter connect_timeout: want a whole number",
		"postgres://u:hunter2@h/d?channel_binding=perhaps":   "parameter channel_binding has a value",
	} {
		if err := checkURL(&settings{}, "source", text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "special characters") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
