# Sourced by the other scripts: where things are, what is said, what is installed.
# shellcheck shell=bash

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
# Downloads that outlive a checkout.
cache=${HELIX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/helix}

say() { printf '\n== %s  [%(%H:%M:%S)T]\n' "$*" -1; }
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs those of the named Debian packages that are missing.
need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    say "installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need_cargo() {
    command -v cargo >/dev/null || fail "cargo is missing; install Rust from https://rustup.rs"
}

# What the broker needs to be built, and what the load generator needs besides (librdkafka is C).
need_server_build() {
    need_cargo
    command -v cc >/dev/null || need_packages gcc libc6-dev
}
need_workload_build() {
    need_server_build
    local tool
    for tool in gcc g++ make; do command -v $tool >/dev/null || need_packages gcc g++ make; done
    [ -e /usr/include/zlib.h ] || need_packages zlib1g-dev
}

# Sets server to the optimised broker, built if needed.
build_server() {
    if [ -n "${HELIX_SERVER_BIN:-}" ]; then
        server=$HELIX_SERVER_BIN
    else
        need_server_build
        (cd "$root" && cargo build --release --package helix-server --bin helix-server)
        server=$target/release/helix-server
    fi
    [ -x "$server" ] || fail "there is no $server"
}

# Sets simulator to the program that runs simulated schedules.
build_simulator() {
    simulator=$(cd "$root" && cargo test --locked --profile simulate --package helix-server --test simulate --no-run \
        --message-format json-render-diagnostics | sed -n 's/.*"executable":"\([^"]*simulate-[^"]*\)".*/\1/p')
    [ -x "$simulator" ] || fail "the simulator was not built"
}

# Sets workload to the load generator, built if needed.
build_workload() {
    if [ -n "${HELIX_WORKLOAD_BIN:-}" ]; then
        workload=$HELIX_WORKLOAD_BIN
    else
        need_workload_build
        (cd "$root" && cargo build --release --package helix-workload --bin helix-workload)
        workload=$target/release/helix-workload
    fi
    [ -x "$workload" ] || fail "there is no $workload"
}

# Apache Kafka's published artifacts: its clients, and a broker to compare with. Sets kafka_libs.
need_kafka() {
    local version=4.1.0
    kafka_libs=$cache/kafka-$version
    command -v javac >/dev/null || need_packages default-jdk-headless
    [ -e "$kafka_libs/complete" ] && return
    command -v mvn >/dev/null || need_packages maven
    say "fetching Apache Kafka $version from Maven"
    mkdir -p "$kafka_libs"
    sed "s/@version@/$version/" "$root/scripts/clients.d/kafka.pom.xml" >"$kafka_libs/pom.xml"
    (cd "$kafka_libs" && mvn -q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=.)
    touch "$kafka_libs/complete"
}
