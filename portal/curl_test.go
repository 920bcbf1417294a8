package portal

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

// The command makes the request of the event and nothing else, in each shell that is here,
// and a terminal that it is pasted into finds no key in it.
func TestCurl_IsTheRequestAndNothingElse(t *testing.T) {
	folder := t.TempDir()
	const fake = `#!/bin/sh
for a in "$@"; do printf '%s\n' "$a" >>"$OUT.args"; case $a in @-) cat >"$OUT.body";; esac; done
`
	if err := os.WriteFile(filepath.Join(folder, "curl"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	erased := strings.Repeat("\x7f", 400) + " ; touch " + filepath.Join(folder, "ran") + " #"
	bodies := map[string]string{
		"plain":    `{"type":"update","data":"{\"name\":\"O'Brien\"}"}`,
		"erased":   `{"note":"` + erased + `"}`,
		"quotes":   `'; touch ` + filepath.Join(folder, "ran") + `; '` + "\u0085",
		"escapes":  `\0101 \n \\ %s %b $HOME` + "\u2028\u202e",
		"no UTF-8": "a\xffbü",
		"empty":    "",
	}
	for _, shell := range []string{"sh", "bash", "dash", "zsh"} {
		if _, err := exec.LookPath(shell); err != nil {
			continue
		}
		for name, body := range bodies {
			s := sentRequest{Method: "POST", Headers: map[string]string{"webhook-id": "evt_1_1"}, Body: body}
			command := s.curl("https://example.com/a b?x={a,b}[1-3]")
			for _, r := range command {
				if r != '\n' && !unicode.IsPrint(r) {
					t.Errorf("%s: the command has %q", name, r)
				}
			}
			out := filepath.Join(folder, shell+name)
			run := exec.Command(shell, "-c", command)
			run.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"), "OUT="+out)
			if said, err := run.CombinedOutput(); err != nil {
				t.Fatalf("%s, %s: %v: %s\n%s", shell, name, err, said, command)
			}
			args, err := os.ReadFile(out + ".args")
			if err != nil {
				t.Fatal(err)
			}
			want := "--globoff\n-X\nPOST\nhttps://example.com/a%20b?x=%7Ba,b%7D%5B1-3%5D\n-H\nwebhook-id: evt_1_1\n"
			if !strings.HasPrefix(string(args), want) {
				t.Errorf("%s, %s: arguments %q, want %q first", shell, name, args, want)
			}
			got := strings.TrimSuffix(strings.TrimPrefix(string(args), want), "\n")
			got = strings.TrimPrefix(got, "--data-raw\n")
			if piped, err := os.ReadFile(out + ".body"); err == nil {
				got = string(piped)
			}
			if got != body {
				t.Errorf("%s, %s: the body is %q, want %q", shell, name, got, body)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(folder, "ran")); err == nil {
		t.Error("a body was run as a command")
	}
}
