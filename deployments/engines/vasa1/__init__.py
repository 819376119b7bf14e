"""After VASA-1: motion by a diffusion transformer, pictures by a decoder over warped frames of the person."""
