"""Batches: a manifest of customers through one template, every row committed by itself."""
