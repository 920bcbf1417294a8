package endtoend

import (
	"strings"
	"testing"
)

// Partitioning by inheritance, as it was done before PostgreSQL 10: neither keys
// nor replica identities are inherited. The children's rows are the parent's,
// and the carrier's own statements go on to work.
func TestRun_RowsOfInheritedTablesAreRowsOfTheirParent(t *testing.T) {
	t.Parallel()
	o := newOwned(t, ownedTables+`
		CREATE TABLE dids_2025 (extra text) INHERITS (dids);
		CREATE TABLE dids_2025_may () INHERITS (dids_2025);
		CREATE TABLE e911_child (PRIMARY KEY (id)) INHERITS (e911);
		INSERT INTO dids_2025 VALUES (100, 7, 'before');
	`, ownedCatalog)
	o.setup(t)
	o.sql(t, "UPDATE dids SET number = 'after setup' WHERE id = 100") // would fail, were the child published without an identity
	process := o.run(t)
	o.sql(t, "INSERT INTO dids_2025 VALUES (1, 7, 'a', 'x')", "INSERT INTO dids_2025_may VALUES (2, 7, 'b')", "INSERT INTO dids VALUES (3, 7, 'c')",
		"UPDATE dids SET number = number || '!' WHERE id < 10", "UPDATE dids SET user_id = 8 WHERE id = 2", "UPDATE dids SET id = 11 WHERE id = 1",
		"INSERT INTO e911_child VALUES (5, 2, 'of 8')", "DELETE FROM dids WHERE id IN (2, 100)", "TRUNCATE dids_2025_may", "DELETE FROM e911 WHERE id = 5")
	wantExactly(t, o.arrived(t),
		`7 delete dids {'id':1,'user_id':7,'number':'a!'}`,
		`7 delete dids {'id':100,'user_id':7,'number':'after setup'}`,
		`7 delete dids {'id':2,'user_id':7,'number':'b!'}`,
		`7 insert dids {'id':1,'user_id':7,'number':'a'}`,
		`7 insert dids {'id':11,'user_id':7,'number':'a!'}`,
		`7 insert dids {'id':2,'user_id':7,'number':'b'}`,
		`7 insert dids {'id':3,'user_id':7,'number':'c'}`,
		`7 update dids {'id':1,'user_id':7,'number':'a!'}`,
		`7 update dids {'id':100,'user_id':7,'number':'after setup'}`,
		`7 update dids {'id':2,'user_id':7,'number':'b!'}`,
		`7 update dids {'id':3,'user_id':7,'number':'c!'}`,
		`8 delete dids {'id':2,'user_id':8,'number':'b!'}`,
		`8 delete e911 {'id':5,'did_id':2,'note':'of 8'}`,
		`8 insert dids {'id':2,'user_id':8,'number':'b!'}`,
		`8 insert e911 {'id':5,'did_id':2,'note':'of 8'}`)
	wantExactly(t, o.unrouted(t))

	// A child that is made later is named, and setup takes it in.
	o.sql(t, "CREATE TABLE dids_2026 () INHERITS (dids)")
	found := describe(o.examine(t))
	if !strings.Contains(found, "public.dids_2026 inherits from public.dids and is not published") ||
		!strings.Contains(found, "ALTER PUBLICATION walhook ADD TABLE ONLY public.dids_2026") {
		t.Errorf("doctor says\n%s", found)
	}
	o.setup(t)
	o.sql(t, "INSERT INTO dids_2026 VALUES (4, 8, 'new')", "UPDATE dids SET number = 'newer' WHERE id = 4")
	if got := strings.Join(o.arrived(t), "\n"); !strings.Contains(got, `8 update dids {'id':4,'user_id':8,'number':'newer'}`) {
		t.Errorf("of the new child arrived\n%s", got)
	}
	process.stop(t)
}
