"""What the diffusion models learn from: who, their triplanes and their portraits."""
