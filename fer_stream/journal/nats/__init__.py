"""The journal in NATS JetStream: one server, or a cluster whose nodes each hold a copy.

A cursor is the stream's sequence number. A fence, which a writer appends when it takes over, takes one, too::

    streams      names of the streams, subjects and keys; how the streams are made
    connection   a thread with an event loop, one connection, requests, and sentences for what can go wrong
    events       reads events after a cursor
    counters     epochs and sequences of the cameras
    writer       the protocol of the only writer: fences, and batches that are stored as a whole or not at all
    access       a reader, and a writer that never waits
    watch        follows a key-value bucket
    engine       carries out the commands of a fleet's aggregator
    tables       the buckets of a cell that operators and nodes use
    store        the plug-in
"""
