package cdc

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/schemas"
)

// Teardown drops the slot and the publication and says which of them were
// there. A slot that somebody reads is left alone, with a [*Fault].
func Teardown(ctx context.Context, cfg Config) (dropped []string, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	conn, err := cfg.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer closeConn(ctx, conn)
	was, err := dropSlot(ctx, conn, cfg.Slot)
	if err != nil {
		return nil, err
	}
	if was {
		dropped = append(dropped, "slot "+cfg.Slot)
	}
	was, err = dropPublication(ctx, conn, cfg.Publication)
	if was {
		dropped = append(dropped, "publication "+cfg.Publication)
	}
	return dropped, err
}

func dropSlot(ctx context.Context, conn *pgx.Conn, slot string) (was bool, err error) {
	var active bool
	err = conn.QueryRow(ctx, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&active)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look at slot %s: %w", slot, err)
	case active:
		return false, &Fault{Problem: fmt.Sprintf("slot %s is in use", slot), Mend: "stop the walhook that reads it first"}
	}
	if _, err := conn.Exec(ctx, "SELECT pg_catalog.pg_drop_replication_slot($1)", slot); err != nil {
		return false, fmt.Errorf("drop slot %s: %w", slot, err)
	}
	return true, nil
}

func dropPublication(ctx context.Context, conn *pgx.Conn, publication string) (was bool, err error) {
	var oid uint32
	if err := conn.QueryRow(ctx, publicationOIDSQL, publication).Scan(&oid); err != nil || oid == 0 {
		return false, err
	}
	if _, err := conn.Exec(ctx, "DROP PUBLICATION "+schemas.QuoteIdent(publication)); err != nil {
		if sqlState(err) == codeInsufficientRights {
			return false, &Fault{Problem: fmt.Sprintf("the role may not drop publication %s", publication),
				Mend: "as its owner: DROP PUBLICATION " + schemas.QuoteIdent(publication), Err: err}
		}
		return false, fmt.Errorf("drop publication %s: %w", publication, err)
	}
	return true, nil
}
