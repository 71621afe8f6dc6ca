"""How the demo model was made: each stage a command, `python -m recipes.demo.STAGE`.

prepare -> base -> (train) -> pack, and decoder at any time after prepare; docs/demo-model.md tells the whole way.
"""
