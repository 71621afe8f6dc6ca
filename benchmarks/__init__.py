"""What the pack costs, as ratios inside one run; see README.md."""
