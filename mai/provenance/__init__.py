"""What a file says about its origin without a signature: bytes -> fields -> statements.

    containers.read(bytes)   PNG, JPEG, WebP, AVIF, HEIC, TIFF, JPEG 2000 walked by their own structure
                             (png, jpeg, riff, boxes; exif, xmp, iptc, samsung inside them)  -> Reading
    stealth.read(bytes)      NovelAI's bits in the pixels of a PNG, looked for in its first column only
    rules.judge(reading)     one table of what generators write, and where                   -> Statement
    generation.read(...)     prompt, model and seed that the generator left                  -> Generation

Nothing is searched for: a string counts where the format puts it, and nowhere else. Every reader is bounded
by the limits in `reading.py`, for a file may be written by an adversary. Signed claims are C2PA's (detectors/c2pa).
"""
