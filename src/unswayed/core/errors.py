"""The one exception that means: the input is at fault, here is what to change."""


class InputError(ValueError):
    """Wrong input. The command line prints its text as one line and exits with code 2."""
