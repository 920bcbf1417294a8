package endtoend

import (
	"flag"
	"time"
)

// How long and how hard the tests under fire run. Without flags they are short
// and their bounds leave room for a machine that has other things to do.
//
//	go test ./internal/endtoend -run 'Chaos' -chaos 20m -seed 7 -timeout 60m
//	go test ./internal/endtoend -run 'Fleet|Isolation|HeldSnapshot' -full -timeout 60m
//	go test ./internal/endtoend -run TestFailover -failover 1m -timeout 20m
//	go test ./internal/endtoend -run TestUpgrade -upgrade 996abba -timeout 20m
//	go test ./internal/endtoend -run TestModel -model 10m -seed 7 -timeout 30m
//	go test ./internal/endtoend -run TestNATSFeed_LosesNothing -nats-for 10m -timeout 40m -v
//	go test ./internal/endtoend -run TestNATSFeed_Throughput -nats-events 20000 -v
//	go test ./internal/endtoend -run TestFeed_Readers -feed-readers 2000 -feed-for 20s
//	go test ./internal/endtoend -run TestRoutes_Survive -routes 10m -seed 7 -timeout 20m
var (
	fullFlag     = flag.Bool("full", false, "isolation and held snapshot in full size and with the bounds of the contract")
	chaosFlag    = flag.Duration("chaos", 0, "how long the chaos tests break things; 0 is the short run")
	seedFlag     = flag.Uint64("seed", 0, "seed of the chaos and model tests and of the requests to every route; 0 is the short run's own")
	failoverFlag = flag.Duration("failover", 0, "how long the outbox has load before its primary is killed, and after; 0 is the short run")
	upgradeFlag  = flag.String("upgrade", "", "the commit that a fleet is upgraded from; none skips that test")
	modelFlag    = flag.Duration("model", 0, "how long the model test plays acts from its seed, at least each once; 0 is the short run")
	routesFlag   = flag.Duration("routes", 0, "how long requests are made up for every route of the API; 0 is the short run")
)

var (
	resyncRecords = flag.Int("resync-records", 3000, "how many records the resync under load has")
	resyncRate    = flag.Float64("resync-rate", 200, "transactions a second beside it")
	gapRecords    = flag.Int("gap-records", 20_000, "how many records the source has whose slot is lost")
	feedReaders   = flag.Int("feed-readers", 100, "how many readers of feeds wait while a tenth as many get events")
	natsFor       = flag.Duration("nats-for", 0, "how long a feed over NATS is troubled; 0 for each trouble once")
	natsEvents    = flag.Int("nats-events", 0, "how many events a feed over NATS has before it when its throughput is measured; 0 skips that")
	feedFor       = flag.Duration("feed-for", 2*time.Second, "how long the readers of feeds are measured without events, and then with them")
	adoptRecords  = flag.Int("adopt-records", 3000, "how many records the table has that is added under load; -resync-rate transactions run beside it")
)
