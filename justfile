# What one does often, each in one word. `just` lists them.

_list:
    @just --list

# every test on both databases; arguments go to cargo test
test *ARGS:
    ./scripts/test {{ARGS}}

# faults under load (nodes, PostgreSQL, Redis, disks, clocks, networks), and a ledger that must stay at zero:
# `just campaign --faults 200 --seed 7`, `just campaign --resume`, `just campaign --help`
campaign *ARGS:
    cargo test --locked -p sotto --test faults -- {{ARGS}}

# the power of each database's disk cut under load, again and again: --copies 20 --seed 3 --database both
power-cut *ARGS="--copies 20":
    cargo test --locked --test power_cut -- {{ARGS}}

# servers with one bug planted each, and whether the ledger finds it: `just planted --times 3`, `just planted no_dedupe`
planted *ARGS:
    cargo test --locked -p sotto --test planted -- {{ARGS}}

# all tests N times over, ending at the first failure: what is right once must be right always
again N="10":
    for round in $(seq {{N}}); do echo "round $round of {{N}}"; ./scripts/test || exit 1; done

# format, clippy, licences, tests: what must be green before a commit
ci:
    ./.ci/run

# format and clippy alone
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# image, compose files, proxy, chart, alerts, unit and workflows, rendered and checked; --install gets tools from PyPI
lint-deploy *ARGS:
    ./scripts/lint-deploy {{ARGS}}

# write what is made from the code
docs:
    cargo run --quiet -- config reference > target/configuration.md
    mv target/configuration.md docs/configuration.md

# load on a running server: `just load pairs --url http://127.0.0.1:8080 --users users.jsonl`, `just load --help`
load *ARGS:
    cargo run --release --locked --quiet -- load {{ARGS}}

# pairs, rate and idle connections on both databases, as one table
bench:
    ./scripts/measure

# Sotto beside a Node.js server and ejabberd on this machine, in one table: --runs 3, --only sotto,node, --quick
bench-peers *ARGS:
    ./scripts/bench-peers {{ARGS}}

# the whole thing at work on this machine
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# a server with its data in ./data
run *ARGS:
    cargo run -- serve {{ARGS}}
