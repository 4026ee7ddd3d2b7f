# Each target does its own set-up first. The build itself is CMake's: see CMakePresets.json.
.PHONY: help setup setup-all configure build demo test asan format clean
.DEFAULT_GOAL := help

# A compiler process takes up to 1.5 GB with LibTorch's headers.
JOBS ?= $(shell awk -v cores=$$(nproc) '/MemAvailable/ {n = int($$2 / 1500000); \
          print n < 1 ? 1 : n < cores ? n : cores}' /proc/meminfo)

help:
	@echo 'make demo     builds the command and shows what it does'
	@echo 'make test     builds and runs all tests, then checks the style'
	@echo 'make asan     the tests under the address and undefined behaviour sanitizers'
	@echo 'make build    builds the command, build/release/cli/deq'
	@echo 'make format   formats the sources'
	@echo 'make clean    removes build/'
	@echo 'CMAKE_FLAGS=  what CMake is told besides, as -DDEQ_WERROR=ON'
	@echo 'JOBS=n        number of compiler processes (here $(JOBS))'

setup:
	@scripts/setup.sh

setup-all:
	@scripts/setup.sh --all

configure: setup
	@cmake --preset release $(CMAKE_FLAGS) --log-level=WARNING >/dev/null

build: configure
	@cmake --build --preset release --target deq_cli -j $(JOBS)

demo: build
	@scripts/demo.sh

test: setup-all configure
	@cmake --build --preset release -j $(JOBS)
	@ctest --preset release -j $(JOBS)
	@scripts/check_style.sh

asan: setup
	@cmake --preset asan --log-level=WARNING >/dev/null
	@cmake --build --preset asan -j $(JOBS)
	@ctest --preset asan -j $(JOBS)

format: setup
	@git ls-files '*.h' '*.cpp' | xargs clang-format -i

clean:
	@rm -rf build
