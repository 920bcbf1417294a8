package main

import (
	"context"

	"go.uber.org/zap"

	"walhook/cdc/source"
	"walhook/outbox"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// snapshots opens the source for the publisher, which knows no source.
type snapshots struct {
	source source.Config
	log    *zap.Logger
}

func (s snapshots) OpenSnapshot(ctx context.Context, cat *catalog.Catalog) (outbox.Snapshot, error) {
	cfg := s.source
	cfg.Catalog = cat
	moment, err := source.NewMoment(ctx, cfg, s.log)
	if err != nil {
		return nil, err
	}
	// The session keeps the snapshot: the slot would keep WAL.
	defer moment.Close(context.WithoutCancel(ctx))
	rows, err := moment.Rows(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return snapshot{moment.Point, rows}, nil
}

// snapshot is the source at one position.
type snapshot struct {
	point schemas.LSN
	rows  *source.Rows
}

func (s snapshot) Point() schemas.LSN { return s.point }

func (s snapshot) Relation(schema string) (*schemas.Relation, string) { return s.rows.Relation(schema) }

func (s snapshot) Rows(ctx context.Context, query outbox.SourceQuery, f func(outbox.SourceRow) error) error {
	return s.rows.Each(ctx, source.RowQuery{Schema: query.Schema, Accounts: query.Accounts, After: query.After}, func(row source.Row) error {
		return f(outbox.SourceRow{Key: row.Key, Account: row.Account, Tuple: row.Tuple, At: row.At})
	})
}

func (s snapshot) Count(ctx context.Context, query outbox.SourceQuery) (int64, error) {
	return s.rows.Count(ctx, source.RowQuery{Schema: query.Schema, Accounts: query.Accounts})
}

func (s snapshot) Close(ctx context.Context) { s.rows.Close(ctx) }
