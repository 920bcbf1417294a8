VERSION ?=
GO      ?= go

.PHONY: build test demo ci nightly fmt lint

build: ## the binary, ./walhook
	CGO_ENABLED=0 $(GO) build -trimpath $(if $(VERSION),-ldflags "-X main.version=$(VERSION)") -o walhook ./cmd/walhook

test: ## every test; they bring their own PostgreSQL
	$(GO) test ./...

demo: ## the whole pipeline on this machine
	$(GO) run ./cmd/walhook demo

ci: ## what has to pass before a change lands
	.ci/run

nightly: ## longer: races, shuffled order, repeated
	$(GO) test -race -shuffle on -count 3 -timeout 90m ./...

fmt:
	$(GO) fix ./...
	gofmt -w $$(git ls-files --cached --others --exclude-standard '*.go')

lint:
	$(GO) vet ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
