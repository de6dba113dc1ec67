"""The one error that is the user's to mend."""


class InputError(ValueError):
    """Bad input: the message is one line that names what was wrong, what was expected and what to do.

    The command line prints that line and exits with code 2; a notebook shows it as the last line of its traceback.
    """
