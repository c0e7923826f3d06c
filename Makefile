# make run     a whole cluster in one process, data in ./.data (DATA=DIR for another folder)
# make test    everything that fits in 20 minutes; installs the tools it needs by apt
# make help    the rest

GO         ?= go
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PREFIX     ?= /usr/local
DATA       ?= .data
SEEDS      ?= 20
FUZZTIME   ?= 10s
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
NAMES      := pstorage-mdsd pstorage-csd pstorage-targetd pstorage-iscsi pstorage-nbd

export CGO_ENABLED ?= 0

.PHONY: help build run test race fuzz sim sim-bugs model bench judge lint proto install clean

help:
	@sed -n '/^##/s/^## //p' Makefile

## build      bin/pstorage
build:
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/pstorage ./cli

## run        start a whole cluster: pstorage up --data $(DATA) (ARGS= for more flags)
run: build
	bin/pstorage up --data $(DATA) $(ARGS)

## test       lint, unit tests, tests with real clients and processes
test:
	itest/run-tests

## race       unit tests with the race detector (needs a C compiler)
race:
	CGO_ENABLED=1 $(GO) test -race -short ./blockstore/... ./cs/... ./meta/... ./target/... ./cli/...

## fuzz       every fuzz target for FUZZTIME (10s)
fuzz:
	itest/run-fuzz $(FUZZTIME)

## sim        the tests that play failures through, SEEDS (20) seeds each
sim:
	itest/run-sim $(SEEDS)

## model      every interleaving of the rules that keep data safe, in larger bounds than the tests' (MODEL= for flags: see docs/model)
model:
	$(GO) run ./docs/model $(or $(MODEL),-larger)

## sim-bugs   each rule left out of the real code in turn: the simulator must notice (BUG=RULE for one)
sim-bugs:
	$(GO) test -count=1 -v -run 'TestEachRuleLeftOutIsNoticed/$(if $(BUG),^$(BUG)$$)' ./itest/sim

## bench      speed, side by side with peers (BENCH= for flags: see go run ./itest/bench -h)
bench: build
	$(GO) run ./itest/bench $(BENCH)

## judge      the long acceptance runs: real clients, faults, power cuts, conformance, guest (JUDGE= for flags)
judge: build
	$(GO) run ./itest/judge $(JUDGE)

## lint       gofmt, go vet, directions of imports, sizes, staticcheck where it can be had
lint:
	itest/run-lint $(STATICCHECK)

## proto      the generated code of *.proto (needs protoc, protoc-gen-go, protoc-gen-go-grpc)
proto:
	for f in $$(git ls-files '*.proto'); do protoc --go_out=. --go_opt=module=pstorage --go-grpc_out=. --go-grpc_opt=module=pstorage $$f || exit 1; done

## install    the binary, the names it answers to and the systemd units, below DESTDIR and PREFIX
install: build
	install -D bin/pstorage $(DESTDIR)$(PREFIX)/bin/pstorage
	for name in $(NAMES); do ln -sf pstorage $(DESTDIR)$(PREFIX)/bin/$$name; done
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system docs/systemd/*.service

## clean      what was built
clean:
	rm -rf bin .cache
