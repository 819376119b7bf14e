"""A photo that can be moved: mesh, mouth, eyes and how a pose is drawn. Engines say how it moves."""
