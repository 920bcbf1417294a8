package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usageError is wrong usage or configuration.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// usage marks err as wrong usage or configuration; nil stays nil.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// emptyHint is what most often makes a value empty.
const emptyHint = "give it a value, or leave it out; a shell variable that is not set gives an empty value"

// mayBeEmpty are the settings of which an empty value says something: no network besides
// the public ones, no address of its own. The command line can so overrule a file, and
// doctor advises it.
var mayBeEmpty = []string{"allow-cidr", "egress-address"}

// refuseEmpty refuses flags that are given without a value. Such a flag would select
// something else than its user means: everything, or the default.
func refuseEmpty(cmd *cobra.Command, _ []string) error {
	var faults []error
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if flag.Value.Type() == "string" && strings.TrimSpace(flag.Value.String()) == "" && !slices.Contains(mayBeEmpty, flag.Name) {
			faults = append(faults, fmt.Errorf("--%s is empty: %s", flag.Name, emptyHint))
		}
	})
	return usage(errors.Join(faults...))
}

// checkArgs makes wrong arguments of cmd and its subcommands a usage error.
func checkArgs(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil {
		check = cobra.NoArgs
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if err == nil {
			return refuseEmptyArgs(cmd, args)
		}
		if len(args) > 0 {
			if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
				return usage(fmt.Errorf("%w; did you mean %s?", err, strings.Join(similar, " or ")))
			}
		}
		return usage(fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath()))
	}
	for _, sub := range cmd.Commands() {
		checkArgs(sub)
	}
}

// refuseEmptyArgs refuses arguments without a value, as refuseEmpty does flags.
func refuseEmptyArgs(cmd *cobra.Command, args []string) error {
	for i, arg := range args {
		if strings.TrimSpace(arg) != "" {
			continue
		}
		name := fmt.Sprintf("argument %d", i+1)
		if words := strings.Fields(cmd.Use); i+1 < len(words) {
			name = words[i+1]
		}
		return usage(fmt.Errorf("%s is empty: %s", name, emptyHint))
	}
	return nil
}

// flagError says what a flag's value must look like.
func flagError(cmd *cobra.Command, err error) error {
	wrong, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return usage(fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath()))
	}
	flag, value := wrong.GetFlag(), wrong.GetValue()
	if strings.TrimSpace(value) == "" {
		return usage(fmt.Errorf("--%s is empty: %s", flag.Name, emptyHint))
	}
	want, ok := wantedValues[flag.Value.Type()]
	if !ok {
		return usage(fmt.Errorf("--%s %q: %w; see '%s --help'", flag.Name, value, wrong.Unwrap(), cmd.CommandPath()))
	}
	return usage(fmt.Errorf("--%s %q: want %s; see '%s --help'", flag.Name, value, want, cmd.CommandPath()))
}

// wantedValues describes values by the type of their flag.
var wantedValues = map[string]string{
	"bool":         "true or false",
	"duration":     "a duration of hours, minutes and seconds with their units, such as 36h, 90m or 1h30m; a day is 24h",
	"float64":      "a number, such as 10 or 0.5",
	"float64Slice": "numbers, comma separated, such as 10,0.5",
	"int":          "a whole number",
	"int64":        "a whole number",
	"intSlice":     "whole numbers, comma separated, such as 1,10",
	"uint64":       "a whole number, 0 or more",
}

// exclusive refuses more than one of the named flags. A flag that is false is not given.
func exclusive(names ...string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		var given []string
		for _, name := range names {
			flag := cmd.Flags().Lookup(name)
			if flag.Changed && (flag.Value.Type() != "bool" || flag.Value.String() == "true") {
				given = append(given, "--"+name)
			}
		}
		if len(given) > 1 {
			return usage(fmt.Errorf("%s exclude each other: give one of them", strings.Join(given, " and ")))
		}
		return nil
	}
}
