"""The webhook sink of ``fer-stream deliver``: sends events over HTTP, as the CloudEvents HTTP binding says.

::

    messages    events -> body and headers, and their signature
    client      a connection to the receiver, on which every wait has a limit
    sink        the options, what each answer means, and which events of a refused batch are refused
"""
