package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// The helpers.
const (
	helpReceive = "receive" // the receivers
	helpPost    = "post"    // plain POSTs, for the ceiling
	helpDecode  = "decode"  // the reader into a store that only counts
	helpDirect  = "direct"  // the reader straight into the HTTP client
)

// Serve is the main function of a helper process: it answers questions from in until in
// ends.
func Serve(ctx context.Context, name string, in io.Reader, out io.Writer) error {
	switch name {
	case helpReceive:
		return receive(in, out)
	case helpPost:
		return answers(in, out, func(job postJob) (postResult, error) { return job.run(ctx) })
	case helpDecode:
		return answers(in, out, func(job decodeJob) (decodeResult, error) { return job.run(ctx) })
	case helpDirect:
		return direct(ctx, in, out)
	}
	return fmt.Errorf("no helper %q", name)
}

// answers writes the answer to each question of in to out.
func answers[Q, A any](in io.Reader, out io.Writer, answer func(Q) (A, error)) error {
	questions, replies := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var question Q
		err := questions.Decode(&question)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a question: %w", err)
		}
		reply, err := answer(question)
		if err != nil {
			return err
		}
		if err := replies.Encode(reply); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}
