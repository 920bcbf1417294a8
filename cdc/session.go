package cdc

import (
	"context"
	"fmt"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"go.uber.org/zap"

	"walhook/schemas"
)

// runOnce is the life of one replication connection. progress says whether
// changes were stored.
func (r *Reader) runOnce(ctx context.Context) (progress bool, err error) {
	source, err := newCatalogReader(ctx, r.cfg)
	if err != nil {
		return false, err
	}
	defer source.close(ctx)
	conn, arrived, err := r.cfg.connectStream(ctx)
	if err != nil {
		return false, err
	}
	defer closeConn(ctx, conn)

	checkpoint, slot, err := r.begin(ctx, conn, source)
	if err != nil {
		return false, err
	}
	r.state.Store(int32(Reading))
	r.began.Store(true)
	r.metrics.flushed.Store(uint64(checkpoint.Flush))
	r.metrics.oldest.Store(0) // what an earlier session received is sent again
	r.metrics.lag.begins()
	r.log.Info("reading", zap.String("slot", r.cfg.Slot), zap.Stringer("position", checkpoint.Position),
		zap.Stringer("lsn", checkpoint.Flush))

	r.checkSkip(checkpoint.Flush, slot.walEnd)
	if names, err := source.synchronousNames(ctx); err != nil {
		return false, err
	} else if fault := synchronousFault(names); fault != "" {
		r.log.Warn(fault, zap.String("fix", "'walhook doctor' prints the statement"))
	}
	history, err := openHistory(ctx, r.store)
	if err != nil {
		return false, err
	}
	history.eachNamed(r.cfg.Catalog, func(oid uint32, name schemas.TableName) { r.names[oid] = name })
	s := newStream(r, conn, source, history, checkpoint, slot.confirmed)
	s.arrived = arrived
	s.encoding, s.illegible, s.convert = serverEncoding(conn), map[string]bool{}, source.convert
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.receive(ctx) })
	group.Go(func() error { return s.append(ctx) })
	group.Go(func() error { return r.watch(ctx, slot) })
	group.Go(func() error { r.observeTables(ctx, history); return nil })
	err = group.Wait()
	return s.progress, err
}

// begin takes the slot first, then the epoch, then reads the position: whoever
// held the slot before can store nothing after that. The checks come last: once
// we hold the slot, nobody else can move it. A reader whose store does not
// answer takes no slot: a standby may be better off.
func (r *Reader) begin(ctx context.Context, conn *pgconn.PgConn, source *catalogReader) (
	checkpoint schemas.Checkpoint, slot slotState, err error,
) {
	now, err := identify(ctx, conn)
	if err != nil {
		return checkpoint, slot, err
	}
	slot, err = source.inspect(ctx, r.cfg)
	if err != nil {
		return checkpoint, slot, err
	}
	if slot.exists && slot.active {
		return checkpoint, slot, errSlotInUse
	}
	if err := r.store.Ping(ctx); err != nil {
		return checkpoint, slot, err
	}
	if slot.exists && !slot.lost {
		if err := r.start(ctx, conn); err != nil {
			return checkpoint, slot, err
		}
	}
	if checkpoint, err = r.store.TakeOver(ctx); err != nil {
		return checkpoint, slot, err
	}
	if without := r.withoutMessages(checkpoint); without != r.noMessages {
		r.noMessages = without
		return checkpoint, slot, errOtherCount
	}
	if slot, err = source.inspect(ctx, r.cfg); err != nil {
		return checkpoint, slot, err
	}
	if err := r.cfg.check(checkpoint, now, slot); err != nil {
		return checkpoint, slot, err
	}
	was := checkpoint.Source
	if now.timeline != was.Timeline {
		r.log.Info("following the source to another timeline", zap.Int32("from", was.Timeline), zap.Int32("to", now.timeline))
	}
	if now.database != was.Database {
		r.log.Info("the source's database has another name, its slot is the same", zap.String("from", was.Database), zap.String("to", now.database))
	}
	if now.timeline != was.Timeline || now.database != was.Database {
		if err := r.store.Follow(ctx, now.timeline, now.database); err != nil {
			return checkpoint, slot, err
		}
	}
	return checkpoint, slot, nil
}

// withoutMessages says whether the server is asked for no logical messages. A
// transaction that is stored in part is read on as it was begun: messages count
// in its ordinals, or do not.
func (r *Reader) withoutMessages(checkpoint schemas.Checkpoint) bool {
	if checkpoint.Inside() {
		return checkpoint.NoMessages
	}
	return r.cfg.Messages.Off()
}

// start takes the slot. It names no position: the server goes on from what was
// confirmed, which never is ahead of what is stored, and what is stored
// already is skipped by position.
func (r *Reader) start(ctx context.Context, conn *pgconn.PgConn) error {
	options := pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication,
		PluginArgs: []string{
			"proto_version '1'",
			"publication_names " + quoteLiteral(schemas.QuoteIdent(r.cfg.Publication)),
		},
	}
	if !r.noMessages {
		options.PluginArgs = append(options.PluginArgs, "messages 'true'")
	}
	err := pglogrepl.StartReplication(ctx, conn, r.cfg.slotIdent(), 0, options)
	if sqlState(err) == codeObjectInUse {
		return errSlotInUse
	}
	if err != nil {
		return fmt.Errorf("start replication from slot %s: %w", r.cfg.Slot, err)
	}
	return nil
}

func quoteLiteral(s string) string {
	quoted := []byte{'\''}
	for _, c := range []byte(s) {
		if c == '\'' {
			quoted = append(quoted, '\'')
		}
		quoted = append(quoted, c)
	}
	return string(append(quoted, '\''))
}
