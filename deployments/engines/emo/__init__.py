"""EMO, compact: latent diffusion of the mouth, fitted per person, heard directly."""
