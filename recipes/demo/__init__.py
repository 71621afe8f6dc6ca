"""How the demo model was made: `python -m recipes.demo.make`, whose stages are commands of their own.

prepare -> base -> imitate -> (train) -> pack, and decoder at any time after prepare; docs/demo-model.md tells it all.
"""
