"""Models learnt from people: a linear prior of their triplanes, and guesses of its coefficients."""
