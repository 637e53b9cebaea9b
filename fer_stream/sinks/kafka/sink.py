"""The kafka sink of ``fer-stream deliver``: writes events to a topic of Kafka, or of brokers that speak its protocol.

A camera's events are in one partition, in order. The producer is idempotent, and stops at the first error that could
leave a gap (``enable.gapless.guarantee``); its own retries have no limit but ours. After a failure it is thrown away
with everything in its queue, so that nothing of it arrives later, and the next attempt makes a new one.
"""

from __future__ import annotations

import json
import logging
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fer_stream.errors import ConfigError, FatalError, RejectedError, RetryError, SourceError
from fer_stream.settings.options import read
from fer_stream.settings.redaction import redact
from fer_stream.sinks.kafka.settings import CONNECT, KafkaOptions, configuration, parse
from fer_stream.system import extras

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from confluent_kafka import KafkaError, Message, Producer

    from fer_stream.plugins import Delivery
    from fer_stream.settings.tree import DeliverSettings

    Headers = list[tuple[str, str | bytes | None]]

MOST = 1000
"""Most events in a batch."""

ANSWERS = 10.0
"""Seconds for the answers to a batch."""

TURN = 0.2
"""Seconds after which a wait looks whether the brokers refuse this process."""

CLOSE = 1.0
"""Seconds for the reports about messages that are thrown away."""

_log = logging.getLogger(__name__)


def open_sink(argument: str, settings: DeliverSettings) -> Kafka:
    """Return a sink for brokers: ``//HOST:PORT,HOST:PORT/TOPIC``, ``//USER:PASSWORD@HOST/TOPIC``, or ``tls://HOST/TOPIC``.

    Raises:
        ConfigError: this is not such an address, there is no topic or there are two, or an option is not allowed.
        PluginError: confluent-kafka is not installed.
    """
    return Kafka(f"kafka:{argument}" if argument.startswith("//") else argument, read(KafkaOptions, settings.options))


class _UnfitError(Exception):
    """A broker refuses messages for what they are. If there are several, one of them may be the reason."""


class Kafka:
    """Writes batches. It connects with the first batch, and anew after every failure."""

    most = MOST

    def __init__(self, address: str, options: KafkaOptions) -> None:
        given = parse(address).topic
        if bool(given) == bool(options.topic):
            raise ConfigError(
                f"{redact(address)!r} {'and the option topic both name a topic' if given else 'names no topic'}: "
                "give it once, as in kafka://HOST:PORT/TOPIC"
            )
        self._address, self._options, self._topic = address, options, given or options.topic or ""
        self._lib = extras.require("confluent_kafka", "kafka")
        self._producer: Producer | None = None
        self._taken: set[str] = set()
        """Ids in a failed batch that the brokers have stored already: they are not sent again."""
        self._problem = ""
        """What librdkafka said last about a failure."""
        self._refusal: Exception | None = None
        """Why it is of no use to wait any longer for the brokers."""

    def write(self, batch: Sequence[Delivery]) -> None:
        """Write events; return when all in-sync replicas have all of them.

        Raises:
            RetryError: no broker answers, there is no topic, or the brokers cannot store events now.
            RejectedError: some events are larger than the topic allows, or break its rules.
            FatalError: the brokers refuse this process.
        """
        left = [one for one in batch if one.id not in self._taken]
        try:
            self._publish(left)
        except _UnfitError:
            self._publish_singly([one for one in left if one.id not in self._taken])
        self._taken.clear()

    def check(self) -> None:
        """Connect, log in and look for the topic. No event is written.

        Raises:
            RetryError: no broker answers, or there is no topic.
            FatalError: the brokers refuse this process.
        """
        if self._producer is None:
            self._connect()

    def close(self) -> None:
        """Close the connections; a second call does nothing."""
        self._throw_away()

    def _publish_singly(self, deliveries: Sequence[Delivery]) -> None:
        """Write events one by one, because a broker refuses those that are sent together as a whole.

        Raises:
            RejectedError: some of them are refused alone, too. All others are stored.
        """
        reasons: dict[str, str] = {}
        for one in deliveries:
            try:
                self._publish([one])
            except _UnfitError as error:
                reasons[one.id] = str(error)
        if reasons:
            raise RejectedError(reasons)

    def _publish(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        producer = self._producer or self._connect()
        reports: dict[str, KafkaError | None] = {}
        failed = True
        try:
            self._send(producer, deliveries, reports)
            failed = len(reports) < len(deliveries) or any(reports.values())
        finally:
            if failed:
                self._throw_away()  # this brings the last reports
            self._taken |= {identity for identity, error in reports.items() if error is None}
        if failed:
            raise self._failure(deliveries, [error for error in reports.values() if error is not None])

    def _send(self, producer: Producer, deliveries: Sequence[Delivery], reports: dict[str, KafkaError | None]) -> None:
        """Hand events over to librdkafka, and wait for the reports about them, but not longer than allowed."""

        def reporter(identity: str) -> Callable[[KafkaError | None, Message], None]:
            def report(error: KafkaError | None, _message: Message) -> None:
                reports[identity] = error  # no call here: after a fatal error every call in a callback fails

            return report

        deadline = time.monotonic() + ANSWERS
        try:
            producer.poll(0)
            self._problem, self._refusal = "", None  # what happened since the last batch is over
            for one in deliveries:
                key, value, headers = self._message(one)
                producer.produce(self._topic, value, key, headers=headers, on_delivery=reporter(one.id))
            while producer.flush(TURN) and self._refusal is None and time.monotonic() < deadline:
                pass
        except SystemError:
            pass  # a report came after a fatal error
        except self._lib.KafkaException as error:  # a fatal error, which may be that of a report, too
            lost = RetryError(f"{self._name} do not store events: {error.args[0].str()}")
            self._refusal = self._refused(error.args[0], deliveries) or lost

    def _message(self, delivery: Delivery) -> tuple[str | None, str, Headers]:
        """Return key, value and headers of an event, as CloudEvents' protocol binding for Kafka has it."""
        key = delivery.event.camera or None  # a stream.gap belongs to no camera
        if self._options.mode == "structured":
            return key, delivery.text, [("content-type", "application/cloudevents+json; charset=UTF-8")]
        attributes = json.loads(delivery.text)
        data = json.dumps(attributes.pop("data"), ensure_ascii=False, separators=(",", ":"))
        headers: Headers = [("content-type", str(attributes.pop("datacontenttype")))]
        return key, data, headers + [(f"ce_{name}", str(value)) for name, value in attributes.items()]

    # Failures

    @property
    def _name(self) -> str:
        return f"the Kafka brokers {redact(self._address)}"

    def _because(self) -> str:
        return f": {self._problem}" if self._problem else ""

    def _failure(self, deliveries: Sequence[Delivery], errors: Sequence[KafkaError]) -> Exception:
        """Return why events were not stored."""
        for error in errors:
            if refused := self._refused(error, deliveries):
                return refused
        ours = self._lib.KafkaError
        for error in errors:  # codes below 0 are librdkafka's own: it gave up, or was told to
            if error.code() > 0 or error.code() in (ours._UNKNOWN_TOPIC, ours._UNKNOWN_PARTITION):
                return RetryError(f"{self._name} do not store events in the topic {self._topic}: {error.str()}")
        late = RetryError(f"{self._name} do not store events within {ANSWERS:g} s{self._because()}")
        return self._refusal or late

    def _refused(self, error: KafkaError, deliveries: Sequence[Delivery] = ()) -> Exception | None:
        """Return the exception for an error of the messages, or of what this process may do; else ``None``."""
        code, theirs = error.code(), self._lib.KafkaError
        if code == theirs.MSG_SIZE_TOO_LARGE:
            size = sum(len(one.text.encode()) for one in deliveries)
            return _UnfitError(f"it has {size} bytes, and the topic {self._topic} does not take as many")
        if code in (theirs.INVALID_RECORD, theirs.INVALID_MSG, theirs.INVALID_TIMESTAMP, theirs.POLICY_VIOLATION):
            return _UnfitError(f"the topic {self._topic} does not take it: {error.str()}")
        if code in (theirs.TOPIC_AUTHORIZATION_FAILED, theirs.CLUSTER_AUTHORIZATION_FAILED):
            return FatalError(
                f"{self._name} do not let this process write the topic {self._topic}: give its user that permission"
            )
        if code in (theirs.TOPIC_EXCEPTION, theirs.UNSUPPORTED_VERSION, theirs._UNSUPPORTED_FEATURE):
            return FatalError(f"{self._name} cannot have events in the topic {self._topic}: {error.str()}")
        return None

    def _note(self, error: KafkaError) -> None:
        """Take an error that belongs to no message; librdkafka calls this while it is polled."""
        code, theirs = error.code(), self._lib.KafkaError
        if code == theirs._ALL_BROKERS_DOWN:
            return  # why each is down is said before
        self._problem = _plain(error.str())
        refused = code in (theirs._AUTHENTICATION, theirs.SASL_AUTHENTICATION_FAILED)
        if refused and "transport failure" not in self._problem:  # a broker that ends does not refuse anybody
            self._refusal = FatalError(
                f"{self._name} refuse this process: check the user, the password and the mechanism ({self._problem})"
            )
        elif code == theirs._SSL and "certificate" in self._problem:
            self._refusal = FatalError(
                f"{self._name} and this process do not trust each other: check the options ca, certificate and key "
                f"({self._problem})"
            )

    def log(self, _level: int, _pattern: str, kind: str, _client: str, text: str) -> None:
        """Take a line of librdkafka's log, which would else go to standard error; called as `logging.Logger.log`."""
        _log.debug("%s: %s", kind, text)
        if refused := re.search(r"encountered error: (.+?)(?: \(actions .*)?$", text):
            self._problem = refused[1]  # of messages that librdkafka sends again: no report says it
        elif kind == "FAIL":
            self._problem = _plain(text)

    # The producer

    def _connect(self) -> Producer:
        """Make a producer, and wait until a broker has said where the topic is."""
        self._problem, self._refusal = "", None
        try:
            given = configuration(self._address, self._options) | {"error_cb": self._note}
            producer: Producer = self._lib.Producer(given, logger=self)
        except SourceError as error:
            raise RetryError(str(error)) from error
        except self._lib.KafkaException as error:
            raise FatalError(f"{self._name} cannot be used: {error.args[0].str()}; check the options") from error
        self._producer = producer
        deadline, turn = time.monotonic() + CONNECT, TURN
        try:
            while not self._found(producer, turn):
                if time.monotonic() >= deadline:
                    raise RetryError(f"{self._name} are not ready after {CONNECT:g} s{self._because()}")
                turn = max(TURN, min(2 * turn, deadline - time.monotonic()))  # the link may be slow
        except BaseException:
            self._throw_away()
            raise
        return producer

    def _found(self, producer: Producer, turn: float) -> bool:
        """Ask the brokers for the topic, and return whether they have it. Some make it when they are asked.

        Args:
            producer: what asks.
            turn: seconds until an answer would come too late.
        """
        begun = time.monotonic()
        try:
            error = producer.list_topics(self._topic, turn).topics[self._topic].error
        except self._lib.KafkaException:
            error = None  # no answer
        else:
            if error is None:
                return True
            if refused := self._refused(error):
                raise refused
            self._problem = error.str()
            if error.code() == self._lib.KafkaError.UNKNOWN_TOPIC_OR_PART:
                self._problem = f"there is no topic {self._topic}, and they do not make it; make it"
        producer.poll(max(0.0, begun + TURN - time.monotonic()))
        if self._refusal is not None:
            raise self._refusal
        return False

    def _throw_away(self) -> None:
        """End the producer, and everything that it has not sent. Its last reports come now."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        deadline = time.monotonic() + CLOSE
        with suppress(self._lib.KafkaException):
            producer.purge()
        while len(producer) and time.monotonic() < deadline:
            with suppress(self._lib.KafkaException, SystemError):  # each may come once more
                producer.flush(TURN)


def _plain(text: str) -> str:
    """Return what librdkafka says about a connection, without the names of its threads and states."""
    text = re.sub(r"^(\[thrd:[^\]]*\]: )?", "", text)
    text = re.sub(r"^(\w+://)?[^\s/]+/(bootstrap|\d+): ", "", text)
    return re.sub(r" \(after \d+ms in state \w+.*\)$", "", text)
