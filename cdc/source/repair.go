package source

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"walhook/schemas"
)

// tableFault is a problem of a published table, after a change by the carrier.
type tableFault struct {
	table   schemas.TableName
	refused bool // its own updates and deletes fail; otherwise its old rows have only the key
	sql     string
}

// fault returns the problem of a table's replica identity, if there is one.
func (l identityTable) fault(publication string) (fault tableFault, wrong bool) {
	name := l.name()
	statement, ok := l.identity()
	switch {
	case l.publishable():
		return tableFault{table: name, refused: true, sql: publishGeneratedSQL(publication)}, true
	case !ok && l.Listed:
		return tableFault{table: name, refused: true, sql: publishAgain(publication, name, "")[0].Text}, true
	case !ok:
		return tableFault{table: name, refused: true, sql: fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (id)", name)}, true
	case statement.SQL == "":
		return fault, false
	}
	return tableFault{table: name, refused: !l.Updatable || l.Full && (l.Unpublished || l.refusesFull() != ""), sql: statement.SQL}, true
}

// publishGeneratedSQL makes a publication send stored generated columns, so that
// the server takes a replica identity that holds them (PostgreSQL 18).
func publishGeneratedSQL(publication string) string {
	return fmt.Sprintf("ALTER PUBLICATION %s SET (publish_generated_columns = stored)", schemas.QuoteIdent(publication))
}

const (
	// repairLockTimeout bounds how long a statement waits for a table's lock: the
	// carrier's later statements queue behind it.
	repairLockTimeout = "SET lock_timeout = '200ms'"

	firstRepairWait = 5 * time.Second
	lastRepairWait  = 5 * time.Minute
)

// repair is when to try again to repair a table.
type repair struct {
	next time.Time
	wait time.Duration
}

// TableRepair finds problems of published tables after changes by the carrier, logs each
// once, and repairs those that it may. One goroutine owns it.
type TableRepair struct {
	cfg     Config
	store   Changes
	added   func(table uint32) bool // whether the last description of a table says that it is a new partition
	log     *zap.Logger
	faults  map[uint32]tableFault
	seen    map[schemas.TableName]bool // existing tables of the catalog
	said    map[finding]bool           // other problems that were logged
	waiting map[uint32]*repair
}

// NewTableRepair makes a TableRepair that notes its changes in store.
func NewTableRepair(cfg Config, store Changes, added func(table uint32) bool, log *zap.Logger) *TableRepair {
	return &TableRepair{cfg: cfg, store: store, added: added, log: log, seen: map[schemas.TableName]bool{}, waiting: map[uint32]*repair{}}
}

// Check logs the tables whose writes the server refuses, or whose old rows have only the
// key. It repairs a table that refuses its own updates, which is an outage of the
// carrier, and a new partition of a table that has FULL. It does not change a replica
// identity that somebody chose.
func (o *TableRepair) Check(ctx context.Context, source *Introspector) (refused, partial int, err error) {
	tables, err := lookAtTables(ctx, source.conn, o.cfg, "")
	if err != nil {
		return 0, 0, err
	}
	faults, now := map[uint32]tableFault{}, map[finding]bool{}
	for _, t := range tables {
		if !t.exists && o.seen[t.name] {
			o.say(now, "catalog table has disappeared, nothing of it is sent", t.name, "it was dropped, renamed or moved to another schema",
				"restore its name, or change the catalog; changes that a publication FOR TABLES IN SCHEMA did not send meanwhile are missing")
		}
		if !t.exists || !t.logged {
			continue
		}
		o.seen[t.name] = true
		if t.key != nil && t.published {
			o.say(now, "table has no usable key, its changes are listed as unrouted (no_key)", t.name, t.key.problem, t.key.fix())
		}
		full := false
		for _, l := range t.identities {
			full = full || l.Full
		}
		for _, l := range t.identities {
			fault, wrong := l.fault(o.cfg.Publication)
			if l.Child && !l.Published && t.published {
				o.say(now, "table inherits from a published one and is not published, its rows are not sent", l.name(), "it inherits from "+t.name.String(),
					"run 'walhook setup', or what 'walhook doctor' prints")
			}
			if published := t.published && !l.Child || l.Published; !wrong || !published {
				continue
			}
			o.name(l.OID, fault)
			if fault.refused || full && l.Identity == "d" && o.added(l.OID) {
				wrong = !o.try(ctx, source, l, fault)
			}
			if wrong {
				faults[l.OID] = fault
			}
		}
	}
	for oid := range o.waiting {
		if _, still := faults[oid]; !still {
			delete(o.waiting, oid)
		}
	}
	if err := o.checkMembers(ctx, source, now); err != nil {
		return 0, 0, err
	}
	o.faults, o.said = faults, now
	for _, fault := range faults {
		if fault.refused {
			refused++
		} else {
			partial++
		}
	}
	return refused, partial, nil
}

// checkMembers logs row filters and column lists of the catalog's tables.
func (o *TableRepair) checkMembers(ctx context.Context, source *Introspector, now map[finding]bool) error {
	members, err := readMembers(ctx, source.conn, o.cfg)
	if err != nil {
		return fmt.Errorf("read the publication's tables: %w", err)
	}
	for _, m := range members {
		again := publishAgain(o.cfg.Publication, m.table(), "")[0].Text
		if fault, _ := m.columnFault(o.cfg.Catalog); fault != "" {
			o.say(now, "publication has a column list", m.table(), fault, again)
		}
		if fault := m.filterFault(); fault != "" {
			o.say(now, "publication has a row filter", m.table(), fault, again)
		}
	}
	return nil
}

// finding is a problem of a table as it was logged.
type finding struct {
	table        schemas.TableName
	what, reason string
}

// say logs a problem of a table if it is new.
func (o *TableRepair) say(now map[finding]bool, what string, table schemas.TableName, reason, fix string) {
	f := finding{table, what, reason}
	if now[f] = true; !o.said[f] {
		o.log.Error(what, zap.Stringer("table", table), zap.String("reason", reason), zap.String("fix", fix))
	}
}

// name logs a fault if it is new.
func (o *TableRepair) name(oid uint32, fault tableFault) {
	if o.faults[oid] == fault {
		return
	}
	if fault.refused {
		o.log.Error("the server refuses the updates and deletes of a published table",
			zap.Stringer("table", fault.table), zap.String("fix", fault.sql))
		return
	}
	o.log.Warn("old rows of a table carry only the key: so do its deletes, and large values that an update leaves unchanged are absent",
		zap.Stringer("table", fault.table), zap.String("fix", fault.sql))
}

// try runs the statement that repairs a table, if it is due. After a missing right it
// waits for the longest time; after a lock timeout it tries again sooner.
func (o *TableRepair) try(ctx context.Context, source *Introspector, l identityTable, fault tableFault) bool {
	m := o.waiting[l.OID]
	if m == nil {
		m = &repair{wait: firstRepairWait}
		o.waiting[l.OID] = m
	}
	if time.Now().Before(m.next) {
		return false
	}
	m.next, m.wait = time.Now().Add(m.wait), min(2*m.wait, lastRepairWait)
	err := o.apply(ctx, source.conn, l, fault)
	switch {
	case err == nil:
		o.log.Warn("changed the replica identity of a published table",
			zap.Stringer("table", fault.table), zap.String("sql", fault.sql))
		return true
	case sqlState(err) == codeInsufficientRights:
		m.next = time.Now().Add(lastRepairWait)
	}
	o.log.Warn("cannot change a published table, a DBA must", zap.Stringer("table", fault.table),
		zap.String("sql", fault.sql), zap.Duration("retry_in", time.Until(m.next)), zap.Error(err))
	return false
}

func (o *TableRepair) apply(ctx context.Context, conn execer, l identityTable, fault tableFault) (err error) {
	if _, err := conn.Exec(ctx, repairLockTimeout); err != nil {
		return err
	}
	defer func() {
		_, resetErr := conn.Exec(ctx, "SET lock_timeout = 0")
		err = errors.Join(err, resetErr)
	}()
	if l.publishable() {
		_, err := conn.Exec(ctx, fault.sql)
		return err
	}
	statement, ok := l.identity()
	if !ok {
		return errors.New("it has no published primary key, and " + l.refusesFull())
	}
	return setIdentity(ctx, conn, o.store, l.OID, statement.identity)
}

// Due reports whether a repair is due.
func (o *TableRepair) Due() bool {
	for _, m := range o.waiting {
		if !time.Now().Before(m.next) {
			return true
		}
	}
	return false
}
