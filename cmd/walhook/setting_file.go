package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
)

// maxSecretFile bounds a file that holds the value of one setting.
const maxSecretFile = 64 << 10

// readFiles reads the values of secret settings from their files. A setting with both
// a value and a file is an error, since it is not clear which one counts.
func (in *input) readFiles(flags *pflag.FlagSet, warnings *[]string) {
	for i := range settingTable {
		one := &settingTable[i]
		of := one.secretOf()
		if of == "" || !isRegistered(flags, one.name) {
			continue
		}
		path, ok := settingText(in.values.Get(one.name))
		origin := in.origin[one.name]
		switch path = strings.TrimSpace(path); {
		case !ok:
			in.faults = append(in.faults, fmt.Errorf("%s: want the path of one file", origin))
		case path == "":
		case in.origin[of] != "":
			in.faults = append(in.faults, fmt.Errorf("%s and %s are both set: set one of them", in.origin[of], origin))
		default:
			text, err := readSecretFile(path)
			if err != nil {
				in.faults = append(in.faults, fmt.Errorf("%s: %w", origin, err))
				continue
			}
			warnOfOthers(path, "file of --"+of, warnings)
			_ = in.values.Set(of, text) // fails only under StrictMerge
			in.origin[of], in.files[of] = origin, path
		}
	}
}

// again returns a function that reads the file of a database URL once more; nil if the
// URL is not in a file.
func (in *input) again(setting string) func() (string, error) {
	path := in.files[setting]
	if path == "" {
		return nil
	}
	return func() (string, error) {
		text, err := readSecretFile(path)
		return lowerScheme(text), err
	}
}

// readSecretFile reads a value without its line end. Its error never quotes the file.
func readSecretFile(path string) (string, error) {
	// Without O_NONBLOCK a pipe without a writer would block.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if fault, ok := errors.AsType[*fs.PathError](err); ok {
		return "", fmt.Errorf("file %s: %w", path, fault.Err)
	}
	if err != nil {
		return "", fmt.Errorf("file %s cannot be read", path)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxSecretFile+1))
	text := bytes.TrimRight(content, "\r\n")
	switch {
	case err != nil:
		if fault, ok := errors.AsType[*fs.PathError](err); ok {
			err = fault.Err
		}
		return "", fmt.Errorf("file %s: %w", path, err)
	case len(content) > maxSecretFile:
		return "", fmt.Errorf("file %s is larger than %d bytes: want only the value", path, maxSecretFile)
	case len(text) == 0:
		return "", fmt.Errorf("file %s is empty: want only the value", path)
	case bytes.ContainsAny(text, "\r\n\x00"):
		return "", fmt.Errorf("file %s has more than one line: want only the value", path)
	}
	return string(text), nil
}

// warnOfOthers warns about a file with secrets that users outside its owner and group
// can read, or that users other than its owner can write.
func warnOfOthers(path, what string, warnings *[]string) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return // the reader of the file reports it
	}
	var may []string
	if info.Mode()&0o004 != 0 {
		may = append(may, "read")
	}
	if info.Mode()&0o022 != 0 {
		may = append(may, "write")
	}
	if len(may) > 0 {
		*warnings = append(*warnings, fmt.Sprintf("others can %s the %s %s: 'chmod 600' it, or 640 with a group of walhook's own", strings.Join(may, " and "), what, path))
	}
}
