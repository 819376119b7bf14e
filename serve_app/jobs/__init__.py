"""Durable jobs: what was asked, how far it is, who works on it. Any process may die at any moment."""
