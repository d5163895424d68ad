"""The one error that users see."""


class DhnError(Exception):
    """Something the user can mend: bad input, a missing file, weights of another network.

    The message is one line that names the file (or option) and says what to do. The command
    line prints it without a traceback and exits with 1; library users catch it by this name.
    """
