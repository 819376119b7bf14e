"""A still image becomes a talking video."""
