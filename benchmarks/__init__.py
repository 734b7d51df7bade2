"""What Tombola costs, as ratios measured in one run; `make bench` prints them and writes docs/benchmarks.md."""
