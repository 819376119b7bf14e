"""3-D Gaussian splatting: an avatar of Gaussians that ride on the tracked face mesh."""
