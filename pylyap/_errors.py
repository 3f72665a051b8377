"""Exceptions raised by the package."""

from __future__ import annotations


class ArgumentError(ValueError):
    """An invalid value of an argument.

    Parameters
    ----------
    argument : str
        Name of the argument, with an index for one of its entries, as in ``layers[1]``.
    text : str
        What is allowed and what was given. The message is the name followed by this text.

    Attributes
    ----------
    argument : str
        Name of the argument, without an index.
    text : str
        What is allowed and what was given.

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
        super().__init__(argument, text)  # `args` must equal the arguments of __init__ for pickling
        self.argument = argument.partition("[")[0]
        self.text = text

    def __str__(self) -> str:
        return " ".join(self.args)


class ArgumentTypeError(ArgumentError, TypeError):
    """An invalid type of an argument; a subclass of TypeError as well.

    Parameters
    ----------
    argument : str
        Name of the argument, with an index for one of its entries.
    text : str
        What is allowed and what was given.

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
    """A path that does not exist; a subclass of FileNotFoundError as well.

    Parameters
    ----------
    argument : str
        Name of the argument.
    text : str
        What is allowed and what was given.

    Examples
    --------
    >>> import pylyap as pl
    >>> try:
    ...     pl.datasets.mnist("no such folder")
    ... except FileNotFoundError as error:
    ...     print(error)
    folder must be a folder, there is no no such folder
    """
