"""Models learnt from people: a linear prior of their triplanes, and a regression to it."""
