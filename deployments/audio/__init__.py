"""Sound to features, text to speech."""
