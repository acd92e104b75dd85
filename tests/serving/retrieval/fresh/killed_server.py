"""Puts items into the journal of a folder, and is killed by the first write beyond a size.

    python killed_server.py FOLDER SIZE...

For each SIZE a process of its own opens the journal of FOLDER/SIZE, which has the item "before",
and puts in the items "a", with much text, and "b". The operating system kills it when it writes
beyond SIZE bytes of a file, and not before it has written up to there.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

from serving.retrieval.fresh.entry import list_drafts
from serving.retrieval.fresh.journal import Journal


def put_and_be_killed(folder: Path, size: int) -> None:
    with Journal(folder) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        items = [{"item_id": "a", "text": "x" * 30_000}, {"item_id": "b"}]
        journal.append([list_drafts("item", id_column="item_id", upsert=items)])


def main() -> None:
    root, *sizes = sys.argv[1:]
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for size in sizes:
        folder = Path(root, size)
        with Journal(folder) as journal:
            before = {"item_id": "before"}
            journal.append([list_drafts("item", id_column="item_id", upsert=[before])])
        child = os.fork()
        if child == 0:
            put_and_be_killed(folder, int(size))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(size, -status if os.WIFEXITED(status) else os.WTERMSIG(status))


if __name__ == "__main__":
    main()
