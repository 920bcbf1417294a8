package catalog

import _ "embed"

//go:embed carrier.yaml
var carrierYAML []byte

//go:embed platform.yaml
var platformYAML []byte

// Carrier is the built-in catalog, used where no other is asked for.
func Carrier() *Catalog { return builtIn(carrierYAML) }

// Platform is the built-in catalog of a platform for carrier services.
func Platform() *Catalog { return builtIn(platformYAML) }

// BuiltIn is a built-in catalog by its name, carrier or platform; nil for
// another name.
func BuiltIn(name string) *Catalog {
	switch name {
	case "carrier":
		return Carrier()
	case "platform":
		return Platform()
	}
	return nil
}

func builtIn(text []byte) *Catalog {
	c, err := Parse(text)
	if err != nil {
		panic("built-in catalog: " + err.Error()) // a test reads it
	}
	return c
}
