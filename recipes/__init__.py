"""How what ships was made: run from a checkout, `python -m recipes.NAME`. No part of the package."""
