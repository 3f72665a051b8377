"""The errors of the package."""

from __future__ import annotations


class ArgumentError(ValueError):
    """An argument has a value that is not allowed.

    Parameters
    ----------
    argument : str
        Name of the argument, with an index where an entry of it is meant, like ``layers[1]``.
    text : str
        What is allowed and what was given; the message is the name followed by this text.

    Attributes
    ----------
    argument : str
        Name of the argument, without an index.
    text : str
        As given.

    Examples
    --------
    >>> import pylyap as pl
    >>> try:
    ...     pl.Network((2, 0, 1))
    ... except pl.ArgumentError as error:
    ...     print(error.argument)
    layers
    """

    def __init__(self, argument: str, text: str) -> None:
        super().__init__(argument, text)  # `args` are those of the class, so that it can be pickled
        self.argument = argument.partition("[")[0]
        self.text = text

    def __str__(self) -> str:
        return " ".join(self.args)


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument has a type that is not allowed. It is a TypeError as well.

    Parameters
    ----------
    argument, text : str
        As of `ArgumentError`.

    Examples
    --------
    >>> import pylyap as pl
    >>> try:
    ...     pl.Network((2, 3, 1)).init(runs="many")
    ... except TypeError as error:
    ...     print(error)
    runs must be an integer, got 'many'
    """


class MissingPathError(ArgumentError, FileNotFoundError):
    """An argument names a file or folder that is not there. It is a FileNotFoundError as well.

    Examples
    --------
    >>> import pylyap as pl
    >>> try:
    ...     pl.datasets.mnist("no such folder")
    ... except FileNotFoundError as error:
    ...     print(error)
    folder must be a folder, there is no no such folder
    """
