"""Write a backbone in other tools' formats, and prove that they read it."""
