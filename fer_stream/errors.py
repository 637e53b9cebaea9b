"""The tree of all errors that fer_stream raises deliberately.

::

    FerStreamError                the command line prints its message as one sentence
      ConfigError       exit 2    wrong use: a bad setting, label, option or address
      PluginError       exit 2    a plug-in that is not installed or breaks its Protocol
      SourceError       exit 1    a camera, file or address that delivers no pictures
      ModelError        exit 1    a model file that breaks its contract
      JournalError      exit 1    an event log that cannot be read or written
        RivalError      exit 2    an event log that another aggregator also writes
          FencedError   exit 1    a partition of a cell that another aggregator has taken over
      TransportError    exit 1    an address in use, or a peer that cannot be reached
      WireError         exit 1    bytes that are not a valid message

The message says what is wrong, where, and what to do about it. An incomplete but usable result is reported by an
`AnalysisWarning`.
"""


class FerStreamError(Exception):
    """Base of the tree. ``exit_code`` is the exit status of the command line."""

    exit_code = 1


class ConfigError(FerStreamError):
    """Wrong use: a bad setting, label, option or address."""

    exit_code = 2


class PluginError(FerStreamError):
    """A plug-in is not installed, or its object breaks its Protocol."""

    exit_code = 2


class SourceError(FerStreamError):
    """A source cannot be opened, or stopped delivering pictures before its end.

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
    """Another aggregator writes this event log, too. A restart does not help: each needs its own journal."""

    exit_code = 2


class FencedError(RivalError):
    """Another aggregator of the cell has taken over what this one served. After a restart this one helps again."""

    exit_code = 1


class TransportError(FerStreamError):
    """An address cannot be bound, or no aggregator answers there."""


class WireError(FerStreamError):
    """Received bytes are not a valid message, or exceed a limit."""


class AnalysisWarning(UserWarning):
    """A part of a recording, or some of many pictures, could not be analysed; the other rows are complete."""
