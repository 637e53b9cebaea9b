"""The tree of all errors that fer_stream raises deliberately.

::

    FerStreamError                the command line prints its message as one sentence
      ConfigError       exit 2    wrong use: a bad setting, label, option or address
      PluginError       exit 2    a plug-in that is not installed or breaks its Protocol
      SourceError       exit 1    a camera, file or address that delivers no pictures
      ModelError        exit 1    a model file that breaks its contract
      AnnotationError   exit 1    a file of annotations, markers or events that cannot be read or used
      JournalError      exit 1    an event log that cannot be read or written
        RivalError      exit 2    an event log that another aggregator also writes
          FencedError   exit 1    a partition of a cell that another aggregator has taken over
      AnnotationRefusedError      an annotation that cannot be stored, such as one of an unknown camera; exit 2
      TransportError    exit 1    an address in use, or a peer that cannot be reached
      WireError         exit 1    bytes that are not a valid message
      DeliveryError     exit 1    undeliverable events, or a record of deliveries that cannot be used
        RetryError                a sink's receiver cannot take events now, but perhaps later
        RejectedError             a sink's receiver refuses some events for good
        FatalError                a sink cannot go on until its operator has changed something

The message says what is wrong, where, and what to do about it. An incomplete but usable result is reported by an
`AnalysisWarning`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


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


class AnnotationError(FerStreamError):
    """A file of annotations, markers or events is missing or damaged, or does not have the data that are needed."""


class JournalError(FerStreamError):
    """The event log cannot be opened, read or written."""


class RivalError(JournalError):
    """Another aggregator writes this event log, too. A restart does not help: each needs its own journal."""

    exit_code = 2


class FencedError(RivalError):
    """Another aggregator of the cell has taken over what this one served. After a restart this one helps again."""

    exit_code = 1


class AnnotationRefusedError(FerStreamError):
    """An annotation is invalid, its camera is unknown, or its sender may not annotate. Repeating it does not help."""

    exit_code = 2


class TransportError(FerStreamError):
    """An address cannot be bound, or no aggregator answers there."""


class WireError(FerStreamError):
    """Received bytes are not a valid message, or exceed a limit."""


class DeliveryError(FerStreamError):
    """Events cannot be delivered to a sink, or the record of deliveries cannot be read or written."""


class RetryError(DeliveryError):
    """A sink's receiver cannot take the batch now: it is written again, all of it, after a pause.

    ``after`` is the least number of seconds until then, if the receiver has named one.
    """

    def __init__(self, message: str, *, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class RejectedError(DeliveryError):
    """A sink's receiver refuses some events of a batch for good: they become dead letters, the others come again.

    ``reasons`` says why, by the id of each refused event.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("; ".join(dict.fromkeys(reasons.values())))
        self.reasons = dict(reasons)


class FatalError(DeliveryError):
    """A sink cannot go on until its operator has changed something: a wrong password, a receiver that is gone for good.

    Nothing is lost: it goes on where it was after ``fer-stream deliver retry``, or a restart.
    """


class AnalysisWarning(UserWarning):
    """A part of a recording, or some of many pictures, could not be analysed; the other rows are complete."""
