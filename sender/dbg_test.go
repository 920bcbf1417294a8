package sender
import ("testing";"time";"context";"net/http";"net/http/httptest";"io";"net/netip";"walhook/outbox";"go.uber.org/zap";"github.com/prometheus/client_golang/prometheus";"os";"runtime/pprof")
func TestThroughput(t *testing.T){
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request){ io.Copy(io.Discard, r.Body) }))
	defer srv.Close()
	var urls []string
	for range 50 { urls = append(urls, srv.URL) }
	store, conn := openOutbox(t, urls...)
	const n = 40000
	exec(t, conn, `
	INSERT INTO walhook.event (id, endpoint, revision, record, webhook_id, schema, type, committed_at, appended_at, body)
	SELECT g, 1 + g % 50, 1, 'dids ' || g, 'evt_' || g, 'dids', 'update', now(), now(), convert_to(repeat('x',300), 'UTF8')
	FROM generate_series(1, $1::bigint) g`, n)
	log, _ := zap.NewDevelopment(zap.IncreaseLevel(zap.InfoLevel))
	s, err := New(Config{AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, store, log, prometheus.NewRegistry())
	if err != nil { t.Fatal(err) }
	f,_ := os.Create("/tmp/cpu.prof"); pprof.StartCPUProfile(f)
	ctx, cancel := context.WithCancel(t.Context())
	began := time.Now()
	done := make(chan error,1)
	go func(){ done <- s.Run(ctx) }()
	eventually(t, conn, n, `SELECT count(*) FROM walhook.attempt`)
	t.Log(n/time.Since(began).Seconds(), "per second")
	pprof.StopCPUProfile()
	cancel(); <-done
	_ = outbox.Shards
}
