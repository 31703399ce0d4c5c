"""The one exception that means: the input is at fault, here is what to change."""


class InputError(ValueError):
    """Wrong input. The command line prints its text as one line and exits with code 2."""


def one_line(error: BaseException, length: int = 240) -> str:
    """The text of an error of another library, as part of ours: one line of so many characters."""
    return " ".join(str(error).split())[:length]
