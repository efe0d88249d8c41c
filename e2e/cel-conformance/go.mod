module polity.dev/e2e/cel-conformance

go 1.26.0

require cel.dev/expr v0.25.3
