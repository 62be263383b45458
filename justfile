# Shortcuts for people. CI and the documentation use the commands themselves.

# list what there is
default:
    @just --list

# run the server with its data below the target directory
serve *ARGS:
    cargo run --package keymoat -- serve --data target/dev-data {{ARGS}}

# every check and every test, then one summary
test *ARGS:
    cargo xtask test {{ARGS}}

# the rules that no compiler enforces
tidy:
    cargo xtask tidy

# break promises on purpose; the tests must notice
controls *ARGS:
    cargo xtask controls {{ARGS}}
