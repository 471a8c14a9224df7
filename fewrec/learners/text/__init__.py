"""Language models for recommendation: backbones, what is trained of them, and how, many episodes at once."""
