package main

import (
	"os"
	"testing"
)

func TestTerminal_ACharacterMayComeInPieces(t *testing.T) {
	t.Parallel()
	file, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	out := newTerminal(file)
	for _, b := range []byte("é\u009b\x9b€\x1b\n") {
		if n, err := out.Write([]byte{b}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if _, err := out.Write([]byte("line\r\nover\rwritten\n")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file.Name())
	if want := `é\u009b\x9b€\u001b` + "\n" + "line\r\n" + `over\u000dwritten` + "\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}
