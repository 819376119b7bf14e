"""Speech to mouth motion."""
