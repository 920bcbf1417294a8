package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// secretFile writes a file that only its owner can read.
func secretFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSettings_EverySecretComesFromAFileToo(t *testing.T) {
	key := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	want := map[string]string{"source": testURL, "outbox": "postgres://o:hunter2@127.0.0.1/o", "admin-token": "hunter2, a long operator's token", "secret-key": key}
	var args, environ []string
	var yaml strings.Builder
	for name, value := range want {
		path := secretFile(t, value+"\r\n")
		args = append(args, "--"+name+"-file="+path)
		environ = append(environ, envName(name)+"_FILE="+path)
		fmt.Fprintf(&yaml, "%s-file: %s\n", name, path)
	}
	for name, from := range map[string]struct{ args, environ []string }{
		"flags": {args: args}, "environment": {environ: environ}, "file": {args: []string{"--config", secretFile(t, yaml.String())}},
	} {
		got, err := load(t, from.args, from.environ)
		if err != nil || got.Source != want["source"] || got.Outbox != want["outbox"] || got.AdminToken != want["admin-token"] || string(got.SecretKey) != strings.Repeat("k", 32) {
			t.Errorf("%s: %v", name, err)
		}
		if len(got.warnings) > 0 {
			t.Errorf("%s: warned of files that are nobody else's: %q", name, got.warnings)
		}
	}
}

func TestSettings_AFileOfASecretThatIsWrongSaysNothingOfIt(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, setting := range []string{"source", "outbox", "admin-token", "secret-key"} {
		file := "--" + setting + "-file"
		args := []string{"--source", testURL}
		if setting == "source" {
			args = nil
		}
		for _, c := range []struct{ name, path, want string }{
			{"missing", "/does/not/exist", "no such file"},
			{"empty", secretFile(t, ""), "is empty"},
			{"a line end alone", secretFile(t, "\r\n"), "is empty"},
			{"a directory", t.TempDir(), "is a directory"},
			{"too large", secretFile(t, strings.Repeat("x", maxSecretFile)+"\n"), "larger than"},
			{"of two lines", secretFile(t, "hunter2\nhunter2\n"), "more than one line"},
			{"binary", secretFile(t, "hunter2\x00"), "more than one line"},
			{"a pipe that nobody writes to", fifo, "is empty"},
		} {
			began := time.Now()
			_, err := load(t, append(args, file, c.path), nil)
			if err == nil || exitStatus(t.Context(), err) != exitUsage || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s, %s: %v", file, c.name, err)
			}
			if time.Since(began) > 30*time.Second {
				t.Errorf("%s, %s: waited for", file, c.name)
			}
		}
	}
	for setting, want := range map[string]string{"source": "not a PostgreSQL URL", "outbox": "not a PostgreSQL URL", "secret-key": "secret-key"} {
		_, err := load(t, []string{"--" + setting + "-file", secretFile(t, "://hunter2")}, nil)
		if err == nil || exitStatus(t.Context(), err) != exitUsage || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s of the wrong form: %v", setting, err)
		}
	}
}

// A secret that is set by itself and by a file is a mistake wherever either
// comes from: nobody can say which counts.
func TestSettings_ASecretAndItsFileAreNotBothSet(t *testing.T) {
	for setting, value := range map[string]string{
		"source": testURL, "outbox": testURL, "admin-token": "hunter2, a long operator's token", "secret-key": base64.StdEncoding.EncodeToString(make([]byte, 32)),
	} {
		path, name := secretFile(t, value), setting+"-file"
		plain := map[string][2]string{"flag": {"--" + setting, value}, "environment": {envName(setting), value}, "file": {setting, value}}
		ofFile := map[string][2]string{"flag": {"--" + name, path}, "environment": {envName(setting) + "_FILE", path}, "file": {name, path}}
		for from, one := range plain {
			for fileFrom, other := range ofFile {
				var args, environ []string
				var yaml strings.Builder
				for _, set := range []struct {
					from string
					pair [2]string
				}{{from, one}, {fileFrom, other}} {
					switch name, value := set.pair[0], set.pair[1]; set.from {
					case "flag":
						args = append(args, name, value)
					case "environment":
						environ = append(environ, name+"="+value)
					case "file":
						fmt.Fprintf(&yaml, "%s: %q\n", name, value)
					}
				}
				if yaml.Len() > 0 {
					args = append(args, "--config", secretFile(t, yaml.String()))
				}
				_, err := load(t, args, environ)
				if err == nil || !strings.Contains(err.Error(), "are both set") || exitStatus(t.Context(), err) != exitUsage || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("%s by %s and its file by %s: %v", setting, from, fileFrom, err)
				}
			}
		}
	}
}

func TestSettings_AFileThatOthersCanReadOrWriteIsWarnedOf(t *testing.T) {
	for mode, want := range map[os.FileMode]string{
		0o600: "", 0o640: "", 0o440: "", 0o400: "", 0o644: "others can read the ", 0o604: "others can read the ",
		0o620: "others can write the ", 0o602: "others can write the ", 0o666: "others can read and write the ",
	} {
		config, token := secretFile(t, "slot: x\n"), secretFile(t, "hunter2, a long operator's token")
		for _, path := range []string{config, token} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		got, err := load(t, []string{"--source", testURL, "--config", config, "--admin-token-file", token}, nil)
		if err != nil {
			t.Fatal(err)
		}
		warned := strings.Join(got.warnings, "\n")
		if (want == "") != (warned == "") || strings.Count(warned, want+"configuration file") != min(1, len(want)) || strings.Count(warned, want+"file of --admin-token") != min(1, len(want)) || strings.Contains(warned, "hunter2") {
			t.Errorf("%o: %q", mode, warned)
		}
	}
}
