"""Every error that fer_stream raises on purpose, in one tree.

::

    FerStreamError                what the command line prints as one sentence
      ConfigError       exit 2    wrong use: a bad setting, label, option or address
      PluginError       exit 2    a plug-in that is not installed or breaks its Protocol
      SourceError       exit 1    a camera, file or address that gives no pictures
      ModelError        exit 1    a model file that breaks its contract
      JournalError      exit 1    an event log that cannot be read or written
        RivalError      exit 2    an event log that another aggregator writes
      TransportError    exit 1    an address in use, or a peer that cannot be reached
      WireError         exit 1    bytes that are not a message of ours

The message says what is wrong, where, and what to do about it. What is not whole, but can be used, is told by an
`AnalysisWarning`.
"""


class FerStreamError(Exception):
    """Base of the tree. ``exit_code`` is what the command line exits with."""

    exit_code = 1


class ConfigError(FerStreamError):
    """Wrong use: a bad setting, label, option or address."""

    exit_code = 2


class PluginError(FerStreamError):
    """A plug-in is not installed, or what it gives breaks its Protocol."""

    exit_code = 2


class SourceError(FerStreamError):
    """A source cannot be opened, or stopped giving pictures before its end.

    ``transient`` says that opening the source again later may succeed: a camera that is off may be switched on.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class ModelError(FerStreamError):
    """A model file is missing or breaks the contract of its role."""


class JournalError(FerStreamError):
    """The event log cannot be opened, read or written."""


class RivalError(JournalError):
    """Another aggregator writes this event log: a fault of whoever started both, which no restart mends."""

    exit_code = 2


class TransportError(FerStreamError):
    """An address cannot be bound, or no peer answers there."""


class WireError(FerStreamError):
    """Bytes that are not one of our messages, or exceed a limit."""


class AnalysisWarning(UserWarning):
    """A part of a recording, or some of many pictures, could not be analysed; the rows of the rest are there."""
