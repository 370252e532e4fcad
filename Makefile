# The programs are static: no C, and no paths of the machine that built them.
BIN      := bin
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PROGRAMS := ./daemon/cmd/openscope ./relay/cmd/openscope-relay ./client/cmd/openscope-reflect-client
# What the recipient's program is made of runs on other systems than the daemon's.
EVERYWHERE := ./client/... ./passport ./wire ./wire/call ./wire/channel ./wire/handle ./wire/term
STATIC   := CGO_ENABLED=0 GOOS=$(GOOS) GOARCH=$(GOARCH)

EPOCH    := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

.PHONY: help release diagrams audit-modules build man build-client test test-long soak test-report vectors fuzz cover mutants demo bench fmt lint clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 18

build: ## the three programs, into bin/
	@mkdir -p $(BIN)
	$(STATIC) go build -trimpath -buildvcs=false -ldflags '-X main.version=$(VERSION)' -o $(BIN)/ $(PROGRAMS)

build-client: ## the recipient's program for linux, macOS and windows, into bin/client/
	@VERSION='$(VERSION)' .ci/clients $(BIN)/client

man: build ## their manual pages and completion scripts, made by the programs themselves, into bin/
	@for p in $(notdir $(PROGRAMS)); do \
		$(BIN)/$$p __man >$(BIN)/$$p.1 && \
		for s in bash zsh fish; do $(BIN)/$$p completion $$s >$(BIN)/$$p.$$s || exit 1; done || exit 1; \
	done

test: ## everything that proves it; lists what was skipped, and why
	@.ci/test

test-long: ## also what takes hours (build tag long), all vectors of RFC 9180, then 20 million inputs for each fuzz target
	@.ci/test -tags=long -timeout=12h
	@go test -count=1 github.com/cloudflare/circl/hpke
	@.ci/fuzz 20000000x

LENGTH ?= 10m
soak: ## the three programs on an upset network for LENGTH (10m): what they hold, which must not grow
	@go test -tags=long -count=1 -timeout=0 -v -run '^TestASoakLeavesNothingBehind$$' ./bench -args -length=$(LENGTH)

test-report: ## how often the tests try what they try, in make test and in make test-long
	@go run .ci/counts.go

vectors: ## writes testdata/vectors anew; make test says whether they have changed
	@go test -count=1 -run OfTheVectors ./wire ./wire/handle ./wire/channel ./wire/call ./wire/checkpoint ./passport ./daemon/internal/audit ./daemon/internal/catalog -args -update

fuzz: ## 200,000 inputs for each fuzz target
	@.ci/fuzz 200000x

mutants: ## weakens the source one line at a time; a named test must fail each time
	@go run ./bench/mutants

demo: build ## all of it for real on this machine, in about a minute
	@.ci/install sshd=openssh-server
	@go run ./bench/demo

bench: build ## the hot path beside what people would use instead, in one run of ten minutes; writes bench/RESULTS.md
	@.ci/install sshd=openssh-server
	@go run ./bench/perf

release: ## programs, packages, the relay's image, bills of materials and sums, into dist/; ONLY=linux/amd64 makes less
	@go run ./bench/release -version '$(VERSION)' -epoch '$(EPOCH)' -only '$(ONLY)'

diagrams: ## draws wire/diagrams/*.svg from their sources, with graphviz
	@for d in wire/diagrams/*.dot; do dot -Tsvg "$$d" -o "$${d%.dot}.svg" || exit 1; done

audit-modules: ## sums, known holes, licences and reasons of what this is made of
	@.ci/modules

cover: ## fails where the tests of passport or wire reach less than 90 % of it
	@.ci/cover 90

fmt: ## formats the code
	@gofmt -l -w .

lint: ## gofmt, go vet (also for 32 bits, of the long tests, and for the client's other systems), staticcheck
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "not formatted (make fmt):"; echo "$$out"; exit 1; }
	go vet ./...
	go vet .ci/report.go
	go vet .ci/counts.go
	GOARCH=386 go vet ./...
	go vet -tags=long ./...
	GOOS=darwin go vet $(EVERYWHERE)
	GOOS=windows go vet $(EVERYWHERE)
	go tool -modfile=.ci/tools.mod staticcheck ./...

clean: ## removes bin/ and dist/
	@rm -rf bin dist
