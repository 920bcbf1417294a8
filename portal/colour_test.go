package portal

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestAccent_TakesColoursOfHexadecimalDigitsAlone(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"#3451c6": "#3451c6", " #3451C6 ": "#3451c6", "#fa0": "#ffaa00", "#3451c6,#8ea6ff": "#3451c6,#8ea6ff", "#000, #FFF": "#000000,#ffffff",
		"": "", "3451c6": "", "#3451c": "", "#3451c6a": "", "#3451c6aa": "", "#34 1c6": "", "red": "", "rgb(1,2,3)": "", "var(--x)": "", "#": "",
		"red;}body{background:url(//evil.example)": "", "#3451c6;}body{display:none": "", "#3451c6,": "", "#3451c6,red": "", "#1,#2,#3": "",
		"#3451c6\n}": "", "#3451c6/*": "", "#3451g6": "", "#é451c": "", "\\#3451c6": "", "#-1-1-1": "",
	} {
		a, err := ParseAccent(text)
		if got := a.String(); got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", text, got, err)
		}
		if err != nil && err.Error() != "want a colour of six hexadecimal digits, such as #3451c6" {
			t.Errorf("the error may quote %q: %v", text, err)
		}
	}
}

// Every colour as an accent: its text, and text of its own colour, can be read.
func TestAccent_CanBeReadWhateverItIs(t *testing.T) {
	t.Parallel()
	variable := regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`)
	const step = 15
	for r := 0; r < 256; r += step {
		for g := 0; g < 256; g += step {
			for b := 0; b < 256; b += step {
				c := colour{uint8(r), uint8(g), uint8(b)}
				for _, text := range []string{c.String(), "#3451c6," + c.String()} {
					a, err := ParseAccent(text)
					if err != nil {
						t.Fatal(err)
					}
					light, dark, _ := strings.Cut(a.stylesheet(), "@media")
					for part, surfaces := range map[string][]colour{light: lightSurfaces, dark: darkSurfaces} {
						is := map[string]colour{}
						for _, m := range variable.FindAllStringSubmatch(part, -1) {
							if is[m[1]], err = parseColour(m[2]); err != nil {
								t.Fatal(err)
							}
						}
						if len(is) != 4 {
							t.Fatalf("%s sets %v", part, is)
						}
						if ratio := contrast(is["accent"], is["accent-ink"]); ratio < readableRatio {
							t.Fatalf("%s: text on the accent has %.2f", text, ratio)
						}
						if ratio := leastContrast(is["link"], surfaces); ratio < readableRatio {
							t.Fatalf("%s: links have %.2f in %s", text, ratio, part)
						}
						if ratio := leastContrast(is["accent-edge"], surfaces); ratio < edgeRatio {
							t.Fatalf("%s: a button's edge has %.2f in %s", text, ratio, part)
						}
					}
				}
			}
		}
	}
}

// The sample values are those of the examples of WCAG's definition and common knowledge.
func TestContrast_IsThatOfWCAG(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b     string
		from, to float64
	}{{"#ffffff", "#000000", 21, 21}, {"#777777", "#ffffff", 4.47, 4.49}, {"#0000ff", "#ffffff", 8.58, 8.60}, {"#ffff00", "#ffffff", 1.07, 1.08}} {
		a, _ := parseColour(c.a)
		b, _ := parseColour(c.b)
		if got := contrast(a, b); got < c.from-1e-9 || got > c.to+1e-9 {
			t.Errorf("%s on %s: %.3f", c.a, c.b, got)
		}
	}
}

func TestAccent_SaysWhereItIsAdapted(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{"#3451c6": false, "#ffe600": true, "#3451c6,#8ea6ff": false, "#3451c6,#101010": true} {
		a, err := ParseAccent(text)
		if err != nil || (a.Adapted() != "") != want {
			t.Errorf("%s: %q, %v", text, a.Adapted(), err)
		}
	}
}

// The surfaces that contrasts are computed for are those of the stylesheet.
func TestSurfaces_AreThoseOfTheStylesheet(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("static/app.css")
	if err != nil {
		t.Fatal(err)
	}
	light, dark, found := strings.Cut(string(text), "@media (prefers-color-scheme: dark)")
	if !found {
		t.Fatal("the stylesheet has no dark part")
	}
	for part, surfaces := range map[string][]colour{light: lightSurfaces, dark[:strings.Index(dark, "\n* {")]: darkSurfaces} {
		for i, name := range []string{"ground", "card", "idle-soft"} {
			m := regexp.MustCompile(`--` + name + `: (#[0-9a-f]+);`).FindStringSubmatch(part)
			if m == nil {
				t.Fatalf("no --%s in %s", name, part)
			}
			if c, err := parseColour(m[1]); err != nil || c != surfaces[i] {
				t.Errorf("--%s is %s, and contrasts are computed for %s", name, m[1], surfaces[i])
			}
		}
	}
}

func FuzzAccent(f *testing.F) {
	f.Add("#3451c6")
	f.Add("#fff,#000")
	f.Add("red;}body{")
	form := regexp.MustCompile(`^:root \{ (--[a-z-]+: #[0-9a-f]{6}; ){4}\}\n@media \(prefers-color-scheme: dark\) \{ :root \{ (--[a-z-]+: #[0-9a-f]{6}; ){4}\} \}\n$`)
	f.Fuzz(func(t *testing.T, text string) {
		if a, err := ParseAccent(text); err == nil && !form.MatchString(a.stylesheet()) {
			t.Errorf("%q makes %s", text, a.stylesheet())
		}
	})
}
