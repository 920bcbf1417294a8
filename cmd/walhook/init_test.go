package main

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/jackc/pgx/v5/pgconn"
	"go.yaml.in/yaml/v3"

	"walhook/doctor"
	"walhook/internal/pgtest"
)

const initTables = `
CREATE SCHEMA voip;
CREATE TABLE voip.customer (id uuid PRIMARY KEY, name text, web_hook_url text);
CREATE TABLE voip.number (id uuid PRIMARY KEY, customer_id uuid NOT NULL REFERENCES voip.customer, e164 text)`

func TestInit_SaysWhatIsMissingAndAsksNobody(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "--source"},
		{[]string{"--source", "postgres://walhook:hunter2@h:x/d"}, "not a PostgreSQL URL"},
		{[]string{"--source", "postgres://h/d", "--user", ""}, "--user is empty"},
		{[]string{"--source", "postgres://h/d", "--user", "pg_x"}, "--user: role pg_x"},
		{[]string{"--source", "postgres://h/d", "--outbox-user", "pg_x"}, "--outbox-user: role pg_x"},
		{[]string{"--source", "postgres://h/d", "--dir", file}, file + " exists and is no directory"},
		{[]string{"--source", "postgres://h/d", "--outbox-user", "a\nb"}, "--outbox-user"},
		{[]string{"--source", "postgres://h/d", "--outbox", "hunter2"}, "outbox"},
		{[]string{"--source", "postgres://h/d", "--account", `a"`, "--dir", t.TempDir()}, "--account"},
		{[]string{"--source", "postgres://h/d", "more"}, "init --help"},
	} {
		_, err := walhook(t, append([]string{"init"}, test.args...)...)
		if err == nil || !strings.Contains(err.Error(), test.want) || exitStatus(t.Context(), err) != exitUsage || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, want a usage error with %s", test.args, err, test.want)
		}
	}
}

// An error on the way leaves no file behind, and nothing that was there is touched.
func TestInit_WritesAllOrNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := &newFiles{dir: dir}
	files.add("a", []byte("1"), 0o600)
	files.add("blocked/b", []byte("2"), 0o644)
	if err := os.WriteFile(filepath.Join(dir, "blocked"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := files.write(); err == nil {
		t.Error("a file below a file was written")
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a was left: %v", err)
	}
	there := &newFiles{dir: dir}
	there.add("c", []byte("1"), 0o600)
	there.add("blocked", []byte("2"), 0o644)
	err := there.write()
	if err == nil || !strings.Contains(err.Error(), "blocked exists") {
		t.Errorf("a file is replaced: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("%d files are left", len(entries))
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	linked := &newFiles{dir: dir}
	linked.add("link", []byte("1"), 0o600)
	if err := linked.write(); err == nil {
		t.Error("it was written through a link")
	}
}

// Answers on a terminal take the place of flags; an empty one is the default.
func TestInit_AsksOnATerminal(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, initTables)
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	u.User = url.User(u.User.Username())
	dir := filepath.Join(t.TempDir(), "new")
	answers := "no url at all\n" + u.String() + "\n" + u.String() + "\nhooks_" + db.Name + "\n\n" + dir + "\nvoip.numbre\nvoip.customer\n"
	var out bytes.Buffer
	passwords := []string{"wrong", password}
	ask := &asker{ctx: t.Context(), may: true, in: bufio.NewReader(strings.NewReader(answers)), out: &out, password: func() (string, error) {
		typed := passwords[0]
		passwords = passwords[1:]
		return typed, nil
	}}
	cmd := newInitCommand()
	r := &initRequest{sourceUser: "walhook", dir: "."}
	if err := r.read(t.Context(), cmd.Flags(), ask); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	files, plan, err := r.plan(t.Context(), ask)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if err := files.write(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"not a PostgreSQL URL", "refuses the role or its password", "did you mean voip.number?", "[voip.customer]", "[."} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), password) {
		t.Errorf("it shows the password:\n%s", out.String())
	}
	var settings map[string]string
	text, err := os.ReadFile(filepath.Join(dir, settingsName))
	if err == nil {
		err = yaml.Unmarshal(text, &settings)
	}
	if err != nil || !strings.HasPrefix(settings["source"], "postgres://hooks_"+db.Name+":") || !strings.HasSuffix(settings["outbox"], "/walhook?sslmode=disable") {
		t.Errorf("%v: %s", err, strings.Join(slices.Sorted(maps.Keys(settings)), ", "))
	}
	if !plan.oneServer || plan.sourcePassword != plan.outboxPassword {
		t.Errorf("the outbox beside the source got a password of its own")
	}
}

// Each deployment's file is what its tool takes, and refers to the configuration file.
func TestInit_DeploymentsReferToTheConfigurationFile(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, initTables)
	dir := t.TempDir()
	out, err := walhook(t, "init", "--source", db.URL, "--user", "u_"+db.Name, "--dir", dir, "--docker", "--systemd", "--kubernetes", "--image", "registry.example/walhook:1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var settings map[string]string
	if err := yaml.Unmarshal([]byte(read(settingsName)), &settings); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		secret := entry.Name() == settingsName && filepath.Dir(path) == dir || entry.Name() == secretName
		if err == nil && secret != (info.Mode().Perm() == 0o600) {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		text, _ := os.ReadFile(path)
		for name, value := range settings {
			if !secret && slices.Contains([]string{"source", "outbox", "secret-key", "admin-token"}, name) && (strings.Contains(string(text), value) || strings.Contains(out, value)) {
				t.Errorf("%s holds %s", path, name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{WorkingDir: dir,
		ConfigFiles: []types.ConfigFile{{Filename: composeName, Content: []byte(read(composeName))}}})
	if err != nil {
		t.Fatal(err)
	}
	service := project.Services["walhook"]
	if service.NetworkMode != "host" || service.Image != "registry.example/walhook:1.2.3" || len(service.Volumes) != 2 {
		t.Errorf("compose starts %+v", service)
	}
	for _, volume := range service.Volumes {
		if _, err := os.Stat(volume.Source); err != nil || !volume.ReadOnly {
			t.Errorf("volume %+v: %v", volume, err)
		}
	}

	unit := read(unitName)
	for _, want := range []string{"\nLoadCredential=walhook.yaml:" + dir + "/walhook.yaml\n", "\nLoadCredential=catalog.yaml:" + dir + "/catalog.yaml\n",
		"\nAssertPathExists=" + dir + "/walhook.yaml\n", "\nEnvironment=WALHOOK_CONFIG=%d/walhook.yaml\n", "\nEnvironment=WALHOOK_CATALOG=%d/catalog.yaml\n"} {
		if !strings.Contains(unit, want) {
			t.Errorf("the unit lacks %q", want)
		}
	}
	if tool, err := exec.LookPath("systemd-analyze"); err == nil {
		self, _ := os.Executable()
		file := filepath.Join(t.TempDir(), unitName)
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(unit, installedBinary, self)), 0o600); err != nil {
			t.Fatal(err)
		}
		if text, err := exec.CommandContext(t.Context(), tool, "verify", "--man=no", file).CombinedOutput(); err != nil || len(text) > 0 {
			t.Errorf("systemd-analyze verify: %v\n%s", err, text)
		}
	}

	secret := map[string]string{}
	for line := range strings.Lines(read(secretName)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		secret[name] = value
	}
	for name, value := range secret {
		if settings[name] != value {
			t.Errorf("the Secret's %s is not the configuration file's", name)
		}
	}
	if len(secret) != 4 || read("kubernetes/catalog.yaml") != read(catalogName) {
		t.Errorf("the Secret has %d values", len(secret))
	}
	if !strings.Contains(out, "note: a pod does not reach the server at ") {
		t.Errorf("nothing is said of a database that only this machine reaches:\n%s", out)
	}
	if _, err := walhook(t, "init", "--source", db.URL, "--dir", filepath.Join(t.TempDir(), "with space"), "--systemd"); exitStatus(t.Context(), err) != exitUsage {
		t.Errorf("a unit names a path with a space: %v", err)
	}
}

// Slots have their names for the whole server: a second installation needs other ones.
func TestInit_RefusesTheSlotOfAnotherDatabase(t *testing.T) {
	t.Parallel()
	first := pgtest.Database(t)
	second := pgtest.NewDatabase(t, first.Cluster)
	second.Exec(t, initTables)
	slot := "of_" + first.Name
	first.Exec(t, "SELECT pg_create_logical_replication_slot('"+slot+"', 'pgoutput')")
	defer first.Exec(t, "SELECT pg_drop_replication_slot('"+slot+"')")
	dir := t.TempDir()
	_, err := walhook(t, "init", "--source", second.URL, "--slot", slot, "--dir", dir, "--yes")
	if exitStatus(t.Context(), err) != exitUsage || !strings.Contains(err.Error(), "belongs to database "+first.Name) {
		t.Errorf("init: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	if said, err := walhook(t, "init", "--source", second.URL, "--slot", slot+"_2", "--dir", dir, "--yes"); err != nil {
		t.Errorf("init: %v\n%s", err, said)
	}
}

// A person edits the draft, and has the other files written for it: what init says to do.
func TestInit_WritesTheOtherFilesForAnEditedCatalog(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(t, initTables)
	dir := t.TempDir()
	catalog := filepath.Join(dir, catalogName)
	said, err := walhook(t, "init", "--source", db.URL, "--dir", dir, "--kubernetes")
	if err != nil || !strings.Contains(said, "run init with --catalog "+catalog) {
		t.Fatalf("%v\n%s", err, said)
	}
	const edited = "account: {table: voip.customer, id: id, url: web_hook_url}\nschemas: {customer: {table: voip.customer, owner: id, fields: [id]}}\n"
	if err := os.WriteFile(catalog, []byte(edited), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{settingsName, scriptName, manifestsName, secretName} {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, name+".before")); err != nil {
			t.Fatal(err)
		}
	}
	if said, err := walhook(t, "init", "--source", db.URL, "--dir", dir, "--kubernetes", "--catalog", catalog); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for name, want := range map[string]bool{scriptName: false, scriptName + ".before": true} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || strings.Contains(string(text), "voip.number") != want {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	for _, name := range []string{catalogName, manifestsName + "/" + catalogName} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != edited {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

// A URL of any form becomes one with walhook's role, that says the same about everything
// else, and holds no password of another role.
func TestDatabaseURL_KeepsEverythingButTheRole(t *testing.T) {
	for _, text := range []string{
		"postgres://reader:hunter2@db.example:5433/carrier?sslmode=require&application_name=x",
		"postgresql://reader:hunter2@db1,db2:5433/carrier?sslmode=disable",
		"postgres://reader:hunter2@[::1]:5432/my%20db?connect_timeout=3",
		"postgres:///carrier?host=/var/run/postgresql&user=reader&password=hunter2&port=5434",
		"host=db port=5433 user=reader password='hunter2 \\' x' dbname='my db' sslmode=disable",
		"user=reader password=hunter2 host=/tmp dbname=carrier",
	} {
		before, err := pgconn.ParseConfig(text)
		if err != nil {
			t.Fatal(err)
		}
		a, err := parseDatabaseURL(text)
		if err != nil {
			t.Fatal(err)
		}
		if a.user != "reader" || !a.passworded || !strings.HasPrefix(a.password, "hunter2") {
			t.Errorf("%s: role %s, password %v", text, a.user, a.passworded)
		}
		written := a.as("walhook").with("p@:/ w").String()
		if strings.Contains(written, "hunter2") || strings.Contains(a.shown(), "hunter2") {
			t.Errorf("%s: the password is in %s", text, written)
		}
		after, err := pgconn.ParseConfig(written)
		if err != nil {
			t.Errorf("%s: %s: %v", text, written, err)
			continue
		}
		if after.User != "walhook" || after.Password != "p@:/ w" || after.Host != before.Host || after.Port != before.Port || after.Database != before.Database ||
			len(after.Fallbacks) != len(before.Fallbacks) || (after.TLSConfig == nil) != (before.TLSConfig == nil) || !maps.Equal(after.RuntimeParams, before.RuntimeParams) || after.ConnectTimeout != before.ConnectTimeout {
			t.Errorf("%s became %s", text, written)
		}
	}
}

// Names come from databases. None ends a comment or a command, so that its rest would run.
func TestDBAScript_NoNameRuns(t *testing.T) {
	const evil = "x\nDROP TABLE users; --\r\\! touch /tmp/x"
	var s dbaScript
	s.comment("table %s is odd", evil)
	s.section("%s", evil)
	s.advice("ALTER TABLE " + evil)
	s.connect(evil)
	s.step(doctor.Step{Kind: doctor.SQL, Text: "SELECT 1", Note: evil})
	s.passwords = []string{"a 'role'"}
	s.askPasswords(evil)
	for line := range strings.Lines(s.String()) {
		line = strings.TrimSpace(line)
		known := line == "" || strings.HasPrefix(line, "--") || strings.HasPrefix(line, `\connect -reuse-previous=on '`) || strings.HasPrefix(line, `\echo '`) ||
			slices.Contains([]string{"SET search_path = pg_catalog, pg_temp;", "SET lock_timeout = '3s';", "SELECT 1;", `\if :walhook_new_1`, `\endif`, `\password "a 'role'"`}, line)
		if !known {
			t.Errorf("a line of its own: %q", line)
		}
	}
}
