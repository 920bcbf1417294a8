package deploy

import (
	_ "embed"
	"strings"
)

//go:embed systemd/walhook.service
var unit string

// unitProgram is where the unit of this repository expects the binary.
const unitProgram = "/usr/local/bin/walhook"

// Unit returns the unit of systemd for a binary at an absolute path.
func Unit(program string) string {
	return strings.ReplaceAll(unit, unitProgram, program)
}
