"""The diffusion models' training data: subjects, their triplanes and their portraits."""
