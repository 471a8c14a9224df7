"""An example of a package that brings a learner to fewrec, through an entry point."""
