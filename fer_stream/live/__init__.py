"""The live page: what the service sees, in a browser.

::

    aggregator -> [events, status] ---------------------> feed -> viewer (one a browser) -> static/main.js
               -> [observations, preview: while watched] -> picture: pair, blur, JPEG -^

Its process is a subscriber like any other, and may die and come back at any time. `access` says who may see it.
"""
