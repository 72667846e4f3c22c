"""Speed claims, each beside its rivals in one run: ``pytest benchmarks``."""
