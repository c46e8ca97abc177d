"""Side-by-side timings: every figure is a ratio of two things timed in one run."""
