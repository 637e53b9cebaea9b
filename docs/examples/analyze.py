"""A recording as tables: who showed what, for how long, and where the model was not sure.

    python docs/examples/analyze.py talk.mp4

Without a film it takes the demo scene. It needs the extra: pip install 'fer-stream[analyze]'.
"""

import sys

import polars

import fer_stream

# A row for each face in each frame. `label` is empty while the smoothed probabilities favour none enough.
film = fer_stream.analyze(sys.argv[1] if len(sys.argv) > 1 else "demo")
faces = film.faces
print(faces.select("frame", "time", "track", "label", "x", "y", "width", "height"))

# How long was each track in view, and what did it show most?
print(
    faces.group_by("track")
    .agg(
        seconds=polars.col("time").max() - polars.col("time").min(),
        most=polars.col("label").drop_nulls().mode().first(),
        unsure=polars.col("label").is_null().mean().round(2),
    )
    .sort("track")
)

# What the model itself said, without smoothing, where a look at the face was worth something.
scored = [name for name in faces.columns if name.startswith("scored_")]
means = faces.filter(polars.col("quality") > 0.5).select(polars.col(scored).mean().round(3))
print(means.unpivot(variable_name="label", value_name="mean").sort("mean", descending=True))
