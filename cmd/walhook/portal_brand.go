package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"walhook/portal"
)

func parsePortalName(s *settings, text string) (err error) {
	if text != "" {
		s.PortalBrand.Name, err = portal.ParseName(text)
	}
	return err
}

func parsePortalSupport(s *settings, text string) (err error) {
	if text != "" {
		s.PortalBrand.Support, err = portal.ParseSupport(text)
	}
	return err
}

func parsePortalAccent(s *settings, text string) (err error) {
	if text == "" {
		return nil
	}
	if s.PortalBrand.Accent, err = portal.ParseAccent(text); err != nil {
		return fmt.Errorf("%q: %w, or two with a comma for a light and a dark background", text, err)
	}
	if said := s.PortalBrand.Accent.Adapted(); said != "" {
		s.warnings = append(s.warnings, "--portal-accent: "+said)
	}
	return nil
}

// parsePortalLogo reads the logo's file, and perhaps another one for dark backgrounds.
func parsePortalLogo(s *settings, text string) error {
	files, err := list(text)
	if err != nil {
		return err
	}
	if len(files) > 2 {
		return errors.New("want one file, or two with a comma for a light and a dark background")
	}
	for i, to := range []**portal.Logo{&s.PortalBrand.Logo, &s.PortalBrand.LogoDark}[:len(files)] {
		content, err := readLogo(files[i])
		if err == nil {
			*to, err = portal.ReadLogo(content)
		}
		if err != nil {
			return fmt.Errorf("file %s: %w", files[i], err)
		}
	}
	return nil
}

// readLogo reads a file up to what is too large for a logo.
func readLogo(name string) ([]byte, error) {
	cause := func(err error) error {
		if fault, ok := errors.AsType[*fs.PathError](err); ok {
			return fault.Err
		}
		return err
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, cause(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, cause(err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, portal.MaxLogo+1))
	return content, cause(err)
}

func parsePortalFrameAncestors(s *settings, text string) error {
	origins, err := list(text)
	if err == nil {
		s.PortalFrameAncestors, err = portal.ParseFrameAncestors(origins)
	}
	return err
}

// commentedOut reports whether a value of the file is empty because YAML takes a colour
// without quotes for a comment.
func commentedOut(key string, value any) bool {
	text, ok := settingText(value)
	return key == "portal-accent" && ok && strings.TrimSpace(text) == ""
}
