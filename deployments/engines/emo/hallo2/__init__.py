"""The paper's networks at the public size: definitions for the MIT checkpoints of Hallo2, which `lipsync` does not ship."""
