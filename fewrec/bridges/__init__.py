"""Bridges to other libraries' notions of a task: nothing in fewrec needs them, and they import those libraries late."""
