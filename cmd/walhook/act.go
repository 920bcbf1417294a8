package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"walhook/outbox"
	"walhook/outbox/admin"
)

// actTimeout bounds the writing of a line: the command may have been interrupted.
const actTimeout = 5 * time.Second

// recordAct writes into the audit that an operator's command has changed something, also
// where it ended with an error, since it may have changed a part. It returns that error,
// or its own.
func recordAct(ctx context.Context, store *outbox.Store, command, action, detail string, fault error) error {
	if fault != nil {
		if detail != "" {
			detail += ", "
		}
		detail += "ended with an error"
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), actTimeout, errors.New("write the audit"))
	defer cancel()
	err := admin.New(store).Audit(admin.WithActor(ctx, admin.Actor{Name: "operator, " + command}), admin.Act{Action: action, Detail: detail})
	if fault != nil { // of which the audit says less: an outbox without tables has none
		return fault
	}
	if err != nil {
		return fmt.Errorf("%s is done, but the audit does not say so: %w", action, err)
	}
	return nil
}
