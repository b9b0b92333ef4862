"""Text from any usual program: which encoding bytes are in. Pure; standard library only, for the login shell too."""

from __future__ import annotations

MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
ENCODINGS = ("utf-8", "gb18030", "latin-1")  # the first that fits; the last fits everything


def decoded(data: bytes) -> str:
    """The text in `data`: UTF-8 or UTF-16 with or without a byte order mark, GB18030 (GBK, GB2312), else Latin-1."""
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    head = data[:64]
    if len(head) > 3 and 0 in head:  # a key begins with ASCII: in UTF-16 every other byte is zero
        if not any(head[1::2]):
            return data.decode("utf-16-le", "replace")
        if not any(head[::2]):
            return data.decode("utf-16-be", "replace")
    for encoding in ENCODINGS:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise AssertionError("Latin-1 decodes every byte")
