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

// UnitWith returns the unit for settings, and a catalog file unless that is "", of any
// folder: systemd passes both to the service as credentials.
func UnitWith(program, settings, catalog string) string {
	const credential = "LoadCredential=walhook.yaml:/etc/walhook/walhook.yaml\n"
	text := strings.Replace(Unit(program), credential, "LoadCredential=walhook.yaml:"+specifiers.Replace(settings)+"\n", 1)
	const assert = "AssertPathExists=/etc/walhook/walhook.yaml\n"
	text = strings.Replace(text, assert, "AssertPathExists="+specifiers.Replace(settings)+"\n", 1)
	text = strings.Replace(text, "Settings are in /etc/walhook/walhook.yaml", "Settings are in "+settings, 1)
	if catalog == "" {
		return text
	}
	const config = "Environment=WALHOOK_CONFIG=%d/walhook.yaml\n"
	return strings.Replace(text, config, "LoadCredential=catalog.yaml:"+specifiers.Replace(catalog)+"\n"+config+"Environment=WALHOOK_CATALOG=%d/catalog.yaml\n", 1)
}

// specifiers escapes a path in a unit (systemd.unit(5), Specifiers).
var specifiers = strings.NewReplacer("%", "%%")
