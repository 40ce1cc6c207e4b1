# Short names for the commands of a checkout: `just` lists them. Each works without just: it is one line below.

_default:
    @just --list

# Everything that must hold before a push; the same as CI.
ready:
    npm test

# Builds the addon (dev profile) and the JavaScript around it.
build:
    npm run build:debug

# Formats Rust and TypeScript.
fmt:
    cargo fmt
    npm run lint -- --fix

# The static checks alone.
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    cargo clippy --no-default-features --all-targets -- -D warnings
    npm run lint
    npm run types -- --check
    npm run options -- --check

# Rust tests, or those that match a name.
rust *args:
    cargo test --no-default-features {{ args }}

# JavaScript tests without the Nuxt builds, or one file of them.
js *args:
    npm run test:js -- {{ args }}

# The Nuxt builds and the playground in a browser.
nuxt *args:
    npm run test:nuxt -- {{ args }}

# The documentation of the core.
doc:
    cargo doc --no-default-features --no-deps --open

# The benchmarks; writes bench/results.json and docs/benchmarks.md.
bench *args:
    npm run bench -- {{ args }}

# Builds, packs and tries every package of a release, and publishes nothing.
release:
    npm run release:dry
