"""From a path, bytes or a shard to pixels: find.py names what is looked at, decode.py reads it safely.

for found in find(["photos/", "shard.tar"]):
    image = decode(read(found, limits), limits)     # raises ImageError: a status and a sentence
"""
