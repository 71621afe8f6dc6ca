"""How the demo model was made: each stage a command, `python -m mmdiff_core.demo.making.STAGE`, that can be resumed.

latents -> base -> (train) -> decoder; docs/demo-model.md tells the whole way.
"""
