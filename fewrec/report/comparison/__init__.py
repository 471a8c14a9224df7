"""Two folders of results beside each other: what ``fewrec compare`` and ``fewrec verify`` say of their differences."""
