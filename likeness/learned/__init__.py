"""What is learnt of people: a linear prior of their triplanes, and a regression to it."""
