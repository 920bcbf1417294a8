package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// asker asks for what flags do not say. It asks only if input and output are a terminal.
type asker struct {
	ctx      context.Context // its end ends a question
	may      bool
	in       *bufio.Reader
	out      io.Writer
	password func() (string, error) // reads a line without echo
}

func newAsker(cmd *cobra.Command, never bool) *asker {
	fd := int(os.Stdin.Fd())
	return &asker{
		ctx: cmd.Context(),
		may: !never && cmd.InOrStdin() == os.Stdin && term.IsTerminal(fd) && term.IsTerminal(int(os.Stderr.Fd())),
		in:  bufio.NewReader(cmd.InOrStdin()),
		out: cmd.ErrOrStderr(),
		password: func() (string, error) {
			text, err := term.ReadPassword(fd)
			return string(text), err
		},
	}
}

// await reads an answer, or returns the context's error at its end. A read of a terminal
// cannot be stopped: it ends with the process.
func (a *asker) await(read func() (string, error)) (text string, err error) {
	if a.ctx.Err() != nil {
		return "", a.ctx.Err()
	}
	done := make(chan struct{})
	var answer string
	var fault error
	go func() {
		defer close(done)
		answer, fault = read()
	}()
	select {
	case <-done:
		return answer, fault
	case <-a.ctx.Done():
		fmt.Fprintln(a.out)
		return "", a.ctx.Err()
	}
}

// text asks for a flag that is not given, and returns its value.
func (a *asker) text(flags *pflag.FlagSet, name, question, standard string, check func(string) error) (string, error) {
	if flags.Changed(name) || !a.may {
		return standard, nil
	}
	return a.line(question, standard, check)
}

// line asks until the answer passes the check. An empty answer is the default.
func (a *asker) line(question, standard string, check func(string) error) (string, error) {
	for {
		if standard == "" {
			fmt.Fprintf(a.out, "%s: ", question)
		} else {
			fmt.Fprintf(a.out, "%s [%s]: ", question, printable(standard))
		}
		text, err := a.await(func() (string, error) { return a.in.ReadString('\n') })
		if a.ctx.Err() != nil {
			return "", a.ctx.Err()
		}
		if err != nil && (!errors.Is(err, io.EOF) || text == "") {
			return "", usage(errors.New("no answer: give the values as flags, see 'walhook init --help'"))
		}
		if text = strings.TrimSpace(text); text == "" {
			text = standard
		}
		switch {
		case text == "":
			continue
		case check == nil:
			return text, nil
		}
		if err := check(text); err == nil {
			return text, nil
		} else {
			fmt.Fprintf(a.out, "%v\n", err)
		}
	}
}

// source asks for the URL of the source and the role's password, until connect accepts
// them: what is wrong must not show after all other answers.
func (a *asker) source(s *settings, connect func(url string) error) (string, error) {
	if !a.may {
		return "", usage(errors.New("source is missing: set --source or WALHOOK_SOURCE to the carrier database's URL, such as postgres://user@host:5432/database"))
	}
	for {
		text, err := a.line("Source: the carrier's database, as any role that may connect (postgres://readonly@host:5432/database)", "", func(text string) error {
			return checkURL(s, "source", lowerScheme(text))
		})
		if err != nil {
			return "", err
		}
		from, err := parseDatabaseURL(lowerScheme(text))
		if err != nil {
			return "", err
		}
		if !from.passworded {
			fmt.Fprintf(a.out, "Password of %s (not shown; empty for none): ", printable(from.user))
			state, _ := term.GetState(int(os.Stdin.Fd())) // nil where it is no terminal
			password, err := a.await(a.password)
			if a.ctx.Err() != nil {
				if state != nil {
					_ = term.Restore(int(os.Stdin.Fd()), state) // with its echo
				}
				return "", a.ctx.Err()
			}
			fmt.Fprintln(a.out)
			if err != nil {
				return "", fmt.Errorf("read the password: %w", err)
			}
			from = from.with(password)
		}
		if err := connect(from.String()); err == nil {
			return from.String(), nil
		} else {
			fmt.Fprintf(a.out, "%v\n", err)
		}
	}
}
