"""The parts of `bench.mutants`: which one-line breaks there are, which tests run a line, and how a break is tried."""
