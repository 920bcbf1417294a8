package schemas

import "testing"

func TestNearestTable(t *testing.T) {
	t.Parallel()
	known := []TableName{{"voip", "Customer"}, {"voip", "customer"}, {"voip", "phone"}, {"public", "dids"}, {"billing", "invoice"}}
	for _, c := range []struct{ name, want TableName }{
		{TableName{"voip", "custmer"}, TableName{"voip", "customer"}},
		{TableName{"voip", "customers"}, TableName{"voip", "customer"}},
		{TableName{"voip", "Custmer"}, TableName{"voip", "Customer"}},
		{TableName{"public", "phone"}, TableName{"voip", "phone"}},
		{TableName{"public", "didz"}, TableName{"public", "dids"}},
		{TableName{"biling", "invoise"}, TableName{"billing", "invoice"}},
		{TableName{"public", "weather"}, TableName{}},
	} {
		if got := NearestTable(c.name, known); got != c.want {
			t.Errorf("%s: %s instead of %s", c.name, got, c.want)
		}
	}
}
