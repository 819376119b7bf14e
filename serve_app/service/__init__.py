"""What runs jobs on a server: claims them, fans their chunks out, keeps what they made. Knows no HTTP."""
