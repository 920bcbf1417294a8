package portal

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
)

// colour is red, green and blue in sRGB.
type colour [3]uint8

func (c colour) String() string { return "#" + hex.EncodeToString(c[:]) }

// Accent is the colour of buttons and links, on a light and on a dark background. The zero
// value is no accent.
type Accent struct {
	light, dark colour
	set         bool
	ownDark     bool // dark was given, and not derived
}

// ParseAccent reads one colour, or one for a light and one for a dark background, separated
// by a comma. Its error does not quote the text: it may come from a row of somebody's.
func ParseAccent(text string) (Accent, error) {
	light, dark, two := strings.Cut(text, ",")
	a := Accent{set: true, ownDark: two}
	var err error
	if a.light, err = parseColour(light); err == nil && two {
		a.dark, err = parseColour(dark)
	}
	if err != nil {
		return Accent{}, err
	}
	if !two {
		a.dark = readable(a.light, darkSurfaces)
	}
	return a, nil
}

// parseColour reads #rgb or #rrggbb, and no other form of CSS.
func parseColour(text string) (c colour, err error) {
	digits, found := strings.CutPrefix(strings.TrimSpace(text), "#")
	if len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	if n, err := hex.Decode(c[:], []byte(digits[:min(len(digits), 6)])); !found || len(digits) != 6 || err != nil || n != 3 {
		return colour{}, errors.New("want a colour of six hexadecimal digits, such as #3451c6")
	}
	return c, nil
}

// The backgrounds of app.css on which links and text of the accent's colour stand: the
// page, a card, and the darkest or lightest of the others. A test compares them.
var (
	lightSurfaces = []colour{{0xf4, 0xf6, 0xfa}, {0xff, 0xff, 0xff}, {0xe9, 0xed, 0xf4}}
	darkSurfaces  = []colour{{0x0f, 0x14, 0x1e}, {0x18, 0x20, 0x30}, {0x25, 0x30, 0x47}}
)

// readableRatio is the contrast that text needs (WCAG 2.2, 1.4.3), and edgeRatio what
// tells a control from its surroundings (1.4.11).
const (
	readableRatio = 4.5
	edgeRatio     = 3
)

// luminance is the relative luminance of WCAG 2.2.
func (c colour) luminance() float64 {
	linear := func(part uint8) float64 {
		v := float64(part) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c[0]) + 0.7152*linear(c[1]) + 0.0722*linear(c[2])
}

// contrast is the contrast ratio of WCAG 2.2, from 1 to 21.
func contrast(a, b colour) float64 {
	x, y := a.luminance(), b.luminance()
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// leastContrast is the contrast to the surface that differs least.
func leastContrast(c colour, surfaces []colour) float64 {
	least := 21.0
	for _, s := range surfaces {
		least = min(least, contrast(c, s))
	}
	return least
}

// readable returns the colour nearest to c, between c and black or white, that can be read
// as text on all of the surfaces.
func readable(c colour, surfaces []colour) colour {
	toward := colour{}
	if surfaces[0].luminance() < 0.2 {
		toward = colour{255, 255, 255}
	}
	const steps = 100
	for step := range steps {
		mixed := c
		for i := range mixed {
			mixed[i] = uint8((int(c[i])*(steps-step) + int(toward[i])*step + steps/2) / steps)
		}
		if leastContrast(mixed, surfaces) >= readableRatio {
			return mixed
		}
	}
	return toward
}

// ink is the colour of text on c: black or white reach 4.5 on every colour.
func ink(c colour) colour {
	white, black := colour{255, 255, 255}, colour{}
	if contrast(c, white) >= readableRatio {
		return white
	}
	return black
}

// String is the accent as [ParseAccent] reads it; "" for none.
func (a Accent) String() string {
	switch {
	case !a.set:
		return ""
	case a.ownDark:
		return a.light.String() + "," + a.dark.String()
	}
	return a.light.String()
}

// Adapted says in words where links get another colour than the accent's, because the
// accent could not be read there; "" for nowhere.
func (a Accent) Adapted() string {
	if !a.set {
		return ""
	}
	var said []string
	if shown := readable(a.light, lightSurfaces); shown != a.light {
		said = append(said, fmt.Sprintf("text of the colour %s cannot be read on a light background, so links are %s there", a.light, shown))
	}
	if shown := readable(a.dark, darkSurfaces); a.ownDark && shown != a.dark {
		said = append(said, fmt.Sprintf("text of the colour %s cannot be read on a dark background, so links are %s there", a.dark, shown))
	}
	return strings.Join(said, "; ")
}

// stylesheet sets the variables of app.css that an accent changes.
func (a Accent) stylesheet() string {
	return ":root { " + variables(a.light, lightSurfaces) + " }\n" +
		"@media (prefers-color-scheme: dark) { :root { " + variables(a.dark, darkSurfaces) + " } }\n"
}

func variables(c colour, surfaces []colour) string {
	link, edge := readable(c, surfaces), c
	if leastContrast(c, surfaces) < edgeRatio {
		edge = link
	}
	return fmt.Sprintf("--accent: %s; --accent-ink: %s; --accent-edge: %s; --link: %s;", c, ink(c), edge, link)
}

// icon is a picture for the browser's tab.
func (a Accent) icon() string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"><rect width="24" height="24" rx="5" fill="%s"/>`+
		`<circle cx="12" cy="12" r="5" fill="none" stroke="%s" stroke-width="2.6"/></svg>`, a.light, ink(a.light))
}
