VERSION ?=
GO      ?= go

.PHONY: build release test demo ci nightly docs fmt lint

build: ## the binary, ./walhook
	CGO_ENABLED=0 $(GO) build -trimpath $(if $(VERSION),-ldflags "-X main.version=$(VERSION)") -o walhook ./cmd/walhook

release: ## binaries, packages, their contents (SBOM) and checksums, in dist
	rm -rf dist
	VERSION=$(VERSION) .ci/release dist

test: ## every test; they bring their own PostgreSQL
	$(GO) test ./...

demo: ## the whole pipeline on this machine
	@echo "compiling walhook; the first time takes a minute or two" >&2
	@$(GO) run ./cmd/walhook demo

ci: ## what has to pass before a change lands
	.ci/run

nightly: ## everything on every version of PostgreSQL, races, fuzzing
	.ci/matrix full
	$(GO) test -race -shuffle on -count 1 -p 1 -timeout 60m ./...
	$(GO) test ./internal/endtoend -run 'TestChaos' -chaos 20m -seed 2026 -timeout 90m
	$(GO) test ./internal/endtoend -run 'TestFailover' -failover 1m -timeout 30m
	$(GO) test ./internal/endtoend -run 'TestNATSFeed_LosesNothing' -nats-for 10m -timeout 40m
	$(GO) test ./internal/endtoend -run 'TestRoutes' -routes 10m -seed 2026 -timeout 20m
	$(GO) test ./internal/endtoend -run xxx -fuzz FuzzRoutes -fuzztime 5m -fuzzminimizetime 1x
	$(GO) test ./internal/endtoend -run 'Fleet|Isolation|HeldSnapshot' -full -timeout 60m
	$(GO) test ./cdc -run xxx -fuzz FuzzDecode -fuzztime 5m
	$(GO) test ./schemas -run xxx -fuzz FuzzAppendJSON -fuzztime 5m -fuzzminimizetime 1x

docs: ## the pages that are generated from the code
	$(GO) test ./cmd/walhook -run 'IsGeneratedFromTheCode' -update
	$(GO) test ./deploy -run 'TheCommittedFilesAreTheDefaults' -update

fmt:
	$(GO) fix ./...
	gofmt -w $$(git ls-files --cached --others --exclude-standard '*.go')

lint:
	$(GO) vet ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
