"""LivePortrait's and JoyVASA's networks in our definitions, for the public checkpoints (MIT), which `lipsync` does not ship."""
