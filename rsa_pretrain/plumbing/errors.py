"""Define the exception for a user's mistake."""


class UserError(ValueError):
    """Input that cannot be used: what was found, what was expected, what to do.

    Command lines print it as one ``error: …`` line and exit with code 2; any other
    exception is a defect of the toolkit and keeps its traceback.
    """
